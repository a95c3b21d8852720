// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tests/simulation/client.h"
#include "tests/simulation/event_loop.h"
#include "tests/simulation/journal.h"
#include "tests/simulation/load.h"
#include "tests/simulation/simulated_model.h"

namespace millrace {

// Some loads on one model. What happens in the warm-up and afterwards isn't
// measured.
class Experiment {
 public:
  struct Times {
    absl::Duration warmup = absl::Seconds(1);
    absl::Duration measured = absl::Seconds(10);
    // The load goes on, so that the last requests don't have the model for themselves.
    absl::Duration afterwards = absl::Seconds(1);
  };

  // Two experiments with the same seed and the same open loads send the same requests at the same
  // times, whatever the model's options are.
  Experiment(SimulatedModel::Options model, std::vector<Load> loads, uint64_t seed);

  // Runs, then lets all that has been sent come to its end. INTERNAL where a request gets no answer
  // even so, or where the dispatcher is not again as it was at the beginning.
  absl::Status Run(const Times& times);

  const SimulatedModel& model() const { return model_; }
  // Every request, in the order in which they were sent.
  const std::vector<Entry>& entries() const { return journal_->entries(); }
  uint64_t steps() const { return loop_.steps(); }

  // Of a load, by its index: the requests that were sent while it was measured.
  Summary SentBy(size_t load) const;
  Summary SentByAll() const;
  Summary SentByClient(int client) const;
  // Rows per second that were answered OK, or OK and in time, while it was measured.
  double RowsPerSecond(size_t load) const;
  double RowsPerSecond() const;
  double GoodRowsPerSecond() const;
  // The same as RowsPerSecond(), of each client of a load.
  std::vector<double> Shares(size_t load) const;

  // Whether a request was sent while it was measured.
  bool Measured(const Entry& entry) const { return Inside(entry.sent); }

 private:
  bool Inside(absl::Time time) const { return time >= begin_ && time < end_; }
  double Rate(absl::FunctionRef<bool(const Entry&)> picks) const;

  const std::vector<Load> loads_;
  EventLoop loop_;
  const std::shared_ptr<Journal> journal_;
  std::deque<Client> clients_;   // Outlive the model, which answers what is left when it goes.
  std::vector<size_t> load_of_;  // [client]
  SimulatedModel model_;
  absl::Time begin_, end_;  // Of what is measured.
};

}  // namespace millrace
