// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace millrace {

// What the operator allows streams.
struct StreamLimits {
  size_t max_streams = 4096;      // Open at once; more are answered RESOURCE_EXHAUSTED.
  int default_window = 32;        // Requests of a stream that are read and not yet answered.
  int max_window = 256;           // The most that `millrace-window` may ask for.
  size_t max_bytes = 256u << 20;  // Of a stream's undecided requests, and of its unsent answers.
};

}  // namespace millrace
