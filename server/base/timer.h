// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace millrace {

// Runs callbacks when their time has come. Thread-safe.
//
// Invariants:
//  1. A callback runs at most once, never before its time, never under the timer's lock.
//  2. After Cancel() has returned, the callback does not run and is not running.
class Timer {
 public:
  // Names a scheduled callback: its time and a number that is never used twice.
  using Id = std::pair<absl::Time, uint64_t>;

  virtual ~Timer() = default;

  // Runs `callback` at `when` or soon after. The callback must be short.
  virtual Id Schedule(absl::Time when, absl::AnyInvocable<void()> callback) = 0;

  // Forgets the callback. Waits for it where it is just running, unless called from within it.
  virtual void Cancel(const Id& id) = 0;

  // Forgets the callback, without waiting for one that is just running: for callers who hold a lock
  // that the callback takes. What it has captured is destroyed by the caller.
  virtual void Forget(const Id& id) = 0;
};

}  // namespace millrace
