// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <list>

#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"

namespace millrace {

// A clock that stands still until a test advances it. Thread-safe.
//
// A test that drives another thread calls Advance(), then WaitUntilBlocked(): once the thread is
// blocked again it has done all that it does at the new time. A mere notification doesn't change
// who counts as blocked; Advance(absl::ZeroDuration()) makes up for that.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::UnixEpoch());

  absl::Time Now() const override ABSL_LOCKS_EXCLUDED(mutex_);

  void WaitUntil(CondVar& condition, Mutex& mutex, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) ABSL_LOCKS_EXCLUDED(mutex_);

  // Moves the time on and wakes everybody, for their deadline or for no reason. None of them counts
  // as blocked until it waits again. REQUIRES: the caller holds no mutex that anybody waits with.
  void Advance(absl::Duration duration) ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits, in real time, until at least `threads` threads are blocked in WaitUntil(), with a
  // deadline or without one.
  void WaitUntilBlocked(int threads) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Waiter {
    CondVar& condition;
    Mutex& mutex;
    bool woken = false;   // By Advance().
    bool waking = false;  // Advance() is using `condition` and `mutex`, which must outlive that.
  };

  mutable Mutex mutex_;  // Locked after the waiters' own.
  CondVar changed_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
  std::list<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  int blocked_ ABSL_GUARDED_BY(mutex_) = 0;  // Waiters that aren't woken.
};

}  // namespace millrace
