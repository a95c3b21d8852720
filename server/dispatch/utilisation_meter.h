// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "absl/time/time.h"

namespace millrace {

// How busy the replicas were, the last second counting most: 0 is idle, 1 is full.
// Thread-compatible.
class UtilisationMeter {
 public:
  // Says that from `now` on this share of the replicas is busy.
  void Set(absl::Time now, double share) {
    mean_ = ValueAt(now);
    since_ = now;
    share_ = share;
  }

  double ValueAt(absl::Time now) const {
    if (since_ == absl::InfinitePast()) return 0;
    const double keep = std::exp(-absl::ToDoubleSeconds(now - since_));
    return keep * mean_ + (1 - keep) * share_;
  }

 private:
  absl::Time since_ = absl::InfinitePast();
  double share_ = 0;
  double mean_ = 0;  // At `since_`.
};

}  // namespace millrace
