// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/random/bit_gen_ref.h"
#include "absl/time/time.h"

namespace millrace {

// How long to wait before a dead replica is started again: not at all the first time, then longer
// and longer while it keeps dying soon after its start. Thread-compatible.
class RestartBackoff {
 public:
  struct Options {
    absl::Duration first = absl::Milliseconds(100);
    absl::Duration most = absl::Seconds(30);
    absl::Duration healthy_after = absl::Seconds(10);
  };

  explicit RestartBackoff(Options options) : options_(options) {}

  // Takes note of a death (or a failed start) after `lived`, and returns the pause before the next
  // start: half of the step for certain, the rest at random, so that replicas don't start in step.
  absl::Duration NextPause(absl::Duration lived, absl::BitGenRef random);

 private:
  const Options options_;
  int deaths_in_a_row_ = 0;
};

}  // namespace millrace
