// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace millrace {

// Tells a standing queue from a burst, after CoDel (Nichols and Jacobson, 2012): a queue that never
// got short for a whole interval will not do so by itself, and whoever may be shed should wait no
// longer than the target. Pure but for its own state. Thread-compatible.
class OverloadController {
 public:
  struct Options {
    absl::Duration target = absl::InfiniteDuration();  // Infinite: off.
    absl::Duration interval = absl::Milliseconds(100);
  };

  explicit OverloadController(Options options) : options_(options) {}

  bool enabled() const { return options_.target != absl::InfiniteDuration(); }

  // Takes how long the oldest request of a batch had waited when a replica took it at `now`.
  void BatchTaken(absl::Time now, absl::Duration waited) {
    if (!enabled()) return;
    if (now >= interval_end_) {
      // Those who wait longer than the target are shed, so a queue that stands is seen standing
      // just below it: half of it is the sign that it has gone.
      overloaded_ = shortest_ != absl::InfiniteDuration() &&
                    shortest_ > (overloaded_ ? options_.target / 2 : options_.target);
      shortest_ = absl::InfiniteDuration();
      interval_end_ = now + options_.interval;
    }
    shortest_ = std::min(shortest_, waited);
  }

  bool overloaded() const { return overloaded_; }
  // How long a request that may be shed is left to wait.
  absl::Duration MostWait() const {
    return overloaded_ ? options_.target : absl::InfiniteDuration();
  }

 private:
  const Options options_;
  absl::Time interval_end_ = absl::InfinitePast();
  absl::Duration shortest_ = absl::InfiniteDuration();  // In this interval.
  bool overloaded_ = false;
};

}  // namespace millrace
