// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace millrace {

// An open stream, as those see it who look on.
struct StreamGlance {
  std::string name;  // By which it counts; empty where it has none.
  absl::Duration open_for;
  size_t held = 0;  // Requests that are read and whose answers aren't written.
  int window = 0;   // See StreamWindow.
  size_t held_bytes = 0;
  uint64_t answers = 0;
  uint64_t drops = 0;  // As millrace_stream_drops_total counts them.
};

}  // namespace millrace
