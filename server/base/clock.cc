// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/clock.h"

#include <chrono>

#include "absl/time/clock.h"

namespace millrace {
namespace {

class SteadyClock final : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() +
           absl::Nanoseconds(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                 std::chrono::steady_clock::now().time_since_epoch())
                                 .count());
  }

  void WaitUntil(CondVar& condition, Mutex& mutex, absl::Time deadline) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (deadline == absl::InfiniteFuture()) return condition.Wait(mutex);
    const auto since_origin = absl::ToInt64Nanoseconds(deadline - absl::UnixEpoch());
    condition.WaitUntil(
        mutex, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(since_origin)));
  }
};

}  // namespace

Clock& Clock::Real() {
  static auto* const clock = new SteadyClock();
  return *clock;
}

absl::Time WallTime() { return absl::Now(); }

void Clock::SleepFor(absl::Duration duration) {
  Mutex mutex;
  CondVar never_notified;
  const absl::Time deadline = Now() + duration;
  MutexLock lock(mutex);
  while (Now() < deadline) WaitUntil(never_notified, mutex, deadline);
}

}  // namespace millrace
