// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include "server/base/clock.h"

namespace millrace {

// Whether `condition` becomes true within a while.
template <typename Condition>
bool Eventually(Condition condition) {
  const absl::Time end = Clock::Real().Now() + absl::Seconds(20);
  while (!condition()) {
    if (Clock::Real().Now() > end) return false;
    Clock::Real().SleepFor(absl::Milliseconds(2));
  }
  return true;
}

}  // namespace millrace
