// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/inference/preparation.h"

namespace millrace {

// The threads that prepare the inputs of requests, e.g. decode pictures, apart from those that run
// models. Sources take turns, a piece of work each. Thread-safe; `clock` outlives it.
class TransformStage final : public Preparers {
 public:
  TransformStage(int workers, Clock& clock);

  // Ends the threads when they have finished what they are doing. What waits is left.
  ~TransformStage() override;

  void WorkWaits(std::shared_ptr<PreparationSource> source) override ABSL_LOCKS_EXCLUDED(mutex_);

  // From now on at most so many workers work at a time, and on these CPUs alone; where none are
  // named, on all that the process may use. Starts workers where there are fewer. What is being
  // done is finished.
  void Limit(int working, std::vector<int> cpus) ABSL_LOCKS_EXCLUDED(mutex_);

  int workers() const ABSL_LOCKS_EXCLUDED(mutex_);
  // How many may work at a time.
  int limit() const ABSL_LOCKS_EXCLUDED(mutex_);
  // How long workers have worked, all together.
  absl::Duration busy() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What a worker needs for a piece of work.
  struct Turn {
    std::shared_ptr<PreparationSource> source;  // Null once the stage ends.
    std::vector<int> cpus;
  };

  void StartWorkers(int all) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits for a worker's next turn.
  Turn NextTurn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Clock& clock_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int limit_ ABSL_GUARDED_BY(mutex_);
  int working_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration busy_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> cpus_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<PreparationSource>> sources_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Thread>> threads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
