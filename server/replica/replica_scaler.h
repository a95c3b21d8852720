// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

namespace millrace {

// How many replicas a model should have, by how busy they are: more as soon as they have been busy
// for a moment, fewer, one at a time, when the others could have done the work for a long time. The
// two bounds lie apart, so that a steady load leads to a steady number. Time is an argument.
// Thread-compatible.
class ReplicaScaler {
 public:
  struct Options {
    int least = 1;
    int most = 1;
    double grow_above = 0.8;    // Utilisation, from 0 to 1.
    double shrink_below = 0.5;  // Of the replicas that would be left.
    absl::Duration grow_after = absl::Seconds(1);
    absl::Duration shrink_after = absl::Minutes(1);
  };

  explicit ReplicaScaler(Options options) : options_(options) {}

  // How many of the `count` replicas there should be now. Call it regularly.
  int Decide(int count, double utilisation, absl::Time now);

 private:
  const Options options_;
  // Since when they have been too busy, and too idle; InfiniteFuture() where they aren't.
  absl::Time busy_since_ = absl::InfiniteFuture();
  absl::Time idle_since_ = absl::InfiniteFuture();
};

}  // namespace millrace
