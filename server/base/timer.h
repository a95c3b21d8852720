// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"

namespace millrace {

// The one timer thread: runs callbacks when their time has come. Thread-safe.
//
// Invariants:
//  1. A callback runs at most once, never before its time, never under the timer's lock.
//  2. After Cancel() has returned, the callback does not run and is not running.
class Timer {
 public:
  // Names a scheduled callback: its time and a number that is never used twice.
  using Id = std::pair<absl::Time, uint64_t>;

  explicit Timer(Clock& clock);

  // Forgets what is scheduled and joins the thread.
  ~Timer() ABSL_LOCKS_EXCLUDED(mutex_);

  // Runs `callback` on the timer's thread at `when` or soon after. The callback must be short.
  Id Schedule(absl::Time when, absl::AnyInvocable<void()> callback) ABSL_LOCKS_EXCLUDED(mutex_);

  // Forgets the callback. Waits for it where it is just running, unless called from within it.
  void Cancel(const Id& id) ABSL_LOCKS_EXCLUDED(mutex_);

  // Forgets the callback, without waiting for one that is just running: for callers who hold a lock
  // that the callback takes. What it has captured is destroyed by the caller.
  void Forget(const Id& id) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void RunOne(std::map<Id, absl::AnyInvocable<void()>>::iterator next)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Clock& clock_;
  Mutex mutex_;
  CondVar changed_;
  CondVar finished_;
  std::map<Id, absl::AnyInvocable<void()>> scheduled_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t running_number_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread::id thread_id_ ABSL_GUARDED_BY(mutex_);
  Thread thread_;  // Last: it uses all of the above.
};

}  // namespace millrace
