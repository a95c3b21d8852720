// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace millrace {

// Lets so many through per second in the long run, and a number more at once after a pause.
// Thread-compatible.
class RateLimiter {
 public:
  RateLimiter(double per_second, double at_once)
      : per_second_(per_second), at_once_(at_once), left_(at_once) {}

  // Whether one may go through at `now`.
  bool Take(absl::Time now) {
    if (now > last_) {
      left_ = std::min(at_once_, left_ + per_second_ * absl::ToDoubleSeconds(now - last_));
      last_ = now;
    }
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
  }

 private:
  const double per_second_;
  const double at_once_;
  double left_;
  absl::Time last_ = absl::InfinitePast();
};

}  // namespace millrace
