// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include "server/base/check.h"
#include "server/base/clock.h"

namespace millrace {

// The time of a simulation in one thread: it moves when it is told to, and nobody can wait for it.
// Without a lock, hence cheap. Confined to one thread; FakeClock is the one for several.
class VirtualClock : public Clock {
 public:
  absl::Time Now() const override { return now_; }

  void WaitUntil(CondVar& /*condition*/, Mutex& mutex, absl::Time /*deadline*/) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    mutex.AssertHeld();
    MILLRACE_CHECK(false, "In one thread nobody can wait: nobody else would move the time on.");
  }

  // REQUIRES: `time` is not in the past.
  void AdvanceTo(absl::Time time) {
    MILLRACE_CHECK(time >= now_, "Time doesn't run backwards.");
    now_ = time;
  }

  void Advance(absl::Duration duration) { AdvanceTo(now_ + duration); }

 private:
  absl::Time now_ = absl::UnixEpoch();
};

}  // namespace millrace
