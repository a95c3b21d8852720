// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/fakes/manual_timer.h"

#include <utility>

#include "server/base/check.h"

namespace millrace {

Timer::Id ManualTimer::Schedule(absl::Time when, absl::AnyInvocable<void()> callback) {
  const Id id(when, next_number_++);
  scheduled_.emplace(id, std::move(callback));
  return id;
}

void ManualTimer::Forget(const Id& id) {
  // What the callback has captured may use the timer when it is destroyed.
  const auto forgotten = scheduled_.extract(id);
}

absl::Time ManualTimer::NextTime() const {
  return scheduled_.empty() ? absl::InfiniteFuture() : scheduled_.begin()->first.first;
}

int ManualTimer::RunDue(absl::Time now) {
  constexpr int kEndless = 1'000'000;
  int ran = 0;
  while (NextTime() <= now) {
    MILLRACE_CHECK(++ran < kEndless, "Callbacks schedule each other for a time that has passed.");
    auto next = scheduled_.extract(scheduled_.begin());
    next.mapped()();
  }
  return ran;
}

}  // namespace millrace
