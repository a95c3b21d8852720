// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/inference/preparation.h"

namespace millrace {

// The threads that prepare the inputs of requests, e.g. decode pictures, apart from those that run
// models. Sources take turns, a piece of work each. Thread-safe.
class TransformStage final : public Preparers {
 public:
  struct Options {
    int workers = 1;
    std::vector<int> cpus;  // That they run on; empty: any.
  };

  explicit TransformStage(const Options& options);

  // Ends the threads when they have finished what they are doing. What waits is left.
  ~TransformStage() override;

  void WorkWaits(std::shared_ptr<PreparationSource> source) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // The source whose turn it is; null once the stage ends. Waits.
  std::shared_ptr<PreparationSource> NextSource() ABSL_LOCKS_EXCLUDED(mutex_);

  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::shared_ptr<PreparationSource>> sources_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace millrace
