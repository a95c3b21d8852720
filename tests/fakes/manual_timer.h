// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/base/timer.h"

namespace millrace {

// A timer without a thread: callbacks run when RunDue() is called, on the caller's thread. Confined
// to one thread; callbacks may schedule, cancel and forget.
class ManualTimer final : public Timer {
 public:
  // Timer.
  Id Schedule(absl::Time when, absl::AnyInvocable<void()> callback) override;
  void Cancel(const Id& id) override {
    Forget(id);
  }  // Nothing runs meanwhile: there is one thread.
  void Forget(const Id& id) override;

  // The time of the next callback; InfiniteFuture() where there is none.
  absl::Time NextTime() const;

  // Runs what is due at `now`, in the order of time, then of scheduling, also what these callbacks
  // schedule for `now` or earlier. Returns how many ran. Dies where they never come to an end.
  int RunDue(absl::Time now);

 private:
  std::map<Id, absl::AnyInvocable<void()>> scheduled_;
  uint64_t next_number_ = 1;
};

}  // namespace millrace
