// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "absl/time/time.h"

namespace millrace {

// What the operator allows streams.
struct StreamLimits {
  size_t max_streams = 4096;      // Open at once; more are answered RESOURCE_EXHAUSTED.
  int default_window = 32;        // Requests of a stream that are read and not yet answered.
  int max_window = 256;           // The most that `millrace-window` may ask for.
  size_t max_bytes = 256u << 20;  // Of a stream's undecided requests, and of its unsent answers.
  // A stream ends in order when it is so old and a little more (see LifeOf()); what it has read by
  // then is answered, where that takes no longer than the grace.
  absl::Duration connection_age = absl::InfiniteDuration();
  absl::Duration age_grace = absl::Seconds(30);
};

}  // namespace millrace
