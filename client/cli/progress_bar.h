// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <ostream>

#include "absl/time/time.h"

namespace millrace {
inline namespace client {

// One line on a terminal that shows how far a run is; nothing where it is not a terminal.
// Thread-compatible.
class ProgressBar {
 public:
  // `total` is 0 when it isn't known.
  ProgressBar(std::ostream& terminal, bool is_terminal, int64_t total);

  // Shows `done` of the total and the rate, at most ten times a second.
  void Show(int64_t done, double per_second, absl::Time now);

  // Removes the line, so that something else can be printed.
  void Clear();

 private:
  std::ostream& terminal_;
  const bool is_terminal_;
  const int64_t total_;
  absl::Time shown_at_ = absl::InfinitePast();
  bool visible_ = false;
};

}  // namespace client
}  // namespace millrace
