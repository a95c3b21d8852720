// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/fakes/fake_clock.h"

#include <vector>

namespace millrace {

FakeClock::FakeClock(absl::Time start) : now_(start) {}

absl::Time FakeClock::Now() const {
  MutexLock lock(mutex_);
  return now_;
}

void FakeClock::WaitUntil(CondVar& condition, Mutex& mutex, absl::Time deadline) {
  std::list<Waiter>::iterator self;
  {
    MutexLock lock(mutex_);
    if (deadline <= now_) return;
    self = waiters_.insert(waiters_.end(), Waiter{condition, mutex});
    ++blocked_;
    changed_.NotifyAll();
  }
  condition.Wait(mutex);
  mutex.Unlock();  // Advance() may need it to finish with this waiter.
  {
    MutexLock lock(mutex_);
    while (self->waking) changed_.Wait(mutex_);
    if (!self->woken) --blocked_;
    waiters_.erase(self);
  }
  mutex.Lock();
}

void FakeClock::Advance(absl::Duration duration) {
  std::vector<Waiter*> woken;
  {
    MutexLock lock(mutex_);
    now_ += duration;
    for (Waiter& waiter : waiters_) {
      if (waiter.woken) continue;
      waiter.woken = waiter.waking = true;
      woken.push_back(&waiter);
    }
    blocked_ = 0;
  }
  for (Waiter* waiter : woken) {
    // Who registers holds the mutex until it really waits: with the mutex held nobody is missed.
    MutexLock lock(waiter->mutex);
    waiter->condition.NotifyAll();
  }
  MutexLock lock(mutex_);
  for (Waiter* waiter : woken) waiter->waking = false;
  changed_.NotifyAll();
}

void FakeClock::WaitUntilBlocked(int threads) {
  MutexLock lock(mutex_);
  while (blocked_ < threads) changed_.Wait(mutex_);
}

}  // namespace millrace
