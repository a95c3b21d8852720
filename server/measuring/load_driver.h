// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/inference/responder.h"
#include "server/measuring/measurer.h"

namespace millrace {

// Puts a model under load for a while, and measures how it answers. A closed load sends the next
// request as soon as one is answered, on the thread that answers. Thread-safe.
class LoadDriver final : public ResponseSink, public std::enable_shared_from_this<LoadDriver> {
 public:
  struct Options {
    Load load;
    int replicas = 1;  // That run.
    int64_t rows = 1;  // Of a request.
    absl::Duration length;
    absl::Duration patience = absl::Minutes(1);  // With requests that aren't answered.
  };
  // Sends a request.
  using Submit = std::function<void(Responder responder)>;
  // Has what waits answered at once, with an error.
  using Cancel = std::function<void()>;

  static std::shared_ptr<LoadDriver> Create(Options options, Clock& clock, Submit submit,
                                            Cancel cancel);

  // Blocks for about the length, and until every request is answered; longer until every replica
  // has done a few batches, at most four times as long or until the first batch is done. The first
  // error that a request was answered is the run's, but for those that were cancelled at its end.
  // DEADLINE_EXCEEDED where requests aren't answered for `patience`. Call once.
  absl::StatusOr<Trial> Run() ABSL_LOCKS_EXCLUDED(mutex_);

  // ResponseSink.
  void Deliver(uint64_t place, Response&& response) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What one replica has done.
  struct Work {
    absl::Time first;  // When it was done with a batch for the first time, and the last.
    absl::Time last;
    int64_t batches = 0;
  };
  struct Answer {
    absl::Time when;
    absl::Duration took;
  };

  LoadDriver(Options options, Clock& clock, Submit submit, Cancel cancel);

  // A place for a request that is about to be sent; it counts as under way from then on.
  uint64_t TakePlace() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendOne() ABSL_LOCKS_EXCLUDED(mutex_);
  // Sends requests at random times until the length is over.
  void SendAtRandom() ABSL_LOCKS_EXCLUDED(mutex_);
  void WaitForWork() ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether enough has been answered.
  bool IsOver(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False where some request wasn't answered in time.
  bool WaitForAnswers() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasWorked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Trial Result() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double RowsPerSecond() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  Clock& clock_;
  const Submit submit_;
  const Cancel cancel_;
  absl::Time begin_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<absl::Time> sent_ ABSL_GUARDED_BY(mutex_);  // By place.
  std::vector<Answer> answers_ ABSL_GUARDED_BY(mutex_);
  std::map<int, Work> work_ ABSL_GUARDED_BY(mutex_);  // By replica.
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
