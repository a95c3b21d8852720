// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"

namespace millrace {

// Runs tasks on threads of its own, so many at a time, begun in the order in which they came.
// Thread-safe.
class WorkQueue {
 public:
  // Starts `threads` threads, which are all named `name`.
  WorkQueue(const std::string& name, int threads);

  // Runs what waits, and joins the threads. Nothing may be added any more.
  ~WorkQueue();

  // Runs `task` soon. Never blocks.
  void Add(absl::AnyInvocable<void()> task) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  Mutex mutex_;
  CondVar changed_;
  std::deque<absl::AnyInvocable<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Thread>> threads_;  // Last: they use all of the above.
};

}  // namespace millrace
