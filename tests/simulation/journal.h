// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/inference/responder.h"

namespace millrace {

// One simulated request.
struct Entry {
  int client = 0;
  int shape = 0;
  int64_t rows = 1;
  absl::Time sent;
  absl::Time deadline = absl::InfiniteFuture();
  absl::Time answered = absl::InfiniteFuture();  // Still owed.
  absl::StatusCode code = absl::StatusCode::kUnknown;

  absl::Duration latency() const { return answered - sent; }
  bool ok() const { return code == absl::StatusCode::kOk; }
  // Answered with a result, and in time.
  bool good() const { return ok() && answered <= deadline; }
};

// Keeps every request of a simulation and its answer, and dies when one is answered twice. Confined
// to one thread.
class Journal final : public ResponseSink, public std::enable_shared_from_this<Journal> {
 public:
  // Is told of the answers to its requests.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnAnswer(const Entry& entry) = 0;
  };

  explicit Journal(const Clock& clock) : clock_(clock) {}

  // Enters a request; it is answered through Expect(place).
  uint64_t Enter(const Entry& entry, Listener* listener);

  // The right to answer a request.
  Responder Expect(uint64_t place) { return Responder(shared_from_this(), place); }

  // ResponseSink.
  void Deliver(uint64_t place, Response&& response) override;

  const std::vector<Entry>& entries() const { return entries_; }
  uint64_t owed() const { return entries_.size() - answers_; }

 private:
  const Clock& clock_;
  std::vector<Entry> entries_;
  std::vector<Listener*> listeners_;
  uint64_t answers_ = 0;
};

// What can be said of a number of requests.
struct Summary {
  uint64_t requests = 0;
  uint64_t ok = 0;
  uint64_t good = 0;
  double mean_ms = 0;  // Latency of those that are OK; 0 where none is.
  double p50_ms = 0;
  double p99_ms = 0;
  double most_ms = 0;

  // The share, of 1, that got no result in time.
  double missed() const {
    return requests == 0 ? 0 : 1 - static_cast<double>(good) / static_cast<double>(requests);
  }
};

// Summarises the entries that `picks` picks out.
Summary Summarise(const std::vector<Entry>& entries, absl::FunctionRef<bool(const Entry&)> picks);

// Jain's index of fairness: 1 where all are equal, 1/n where one has everything.
double JainIndex(const std::vector<double>& shares);

}  // namespace millrace
