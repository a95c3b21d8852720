// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include "server/base/mutex.h"

namespace millrace {

// Where time comes from. Injected everywhere, so that tests run in virtual time. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // The monotonic time since an arbitrary origin. Times of one clock compare; they are no dates.
  virtual absl::Time Now() const = 0;

  // Waits until `deadline`, or a notification of `condition`, or no reason at all. Blocks.
  // REQUIRES: the caller holds `mutex`.
  virtual void WaitUntil(CondVar& condition, Mutex& mutex, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) = 0;

  // Blocks for `duration`.
  void SleepFor(absl::Duration duration);

  // The machine's monotonic clock; lives for ever.
  static Clock& Real();
};

// The date and time of day, for what people read and peers send. Never for measuring: it jumps.
absl::Time WallTime();

}  // namespace millrace
