// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <ostream>

#include "absl/time/time.h"

namespace millrace {
inline namespace client {

// Shows how far a run is: in one line on a terminal that is renewed, else in a line every few
// seconds. Thread-compatible.
class ProgressBar {
 public:
  // `unit` is what is counted, e.g. "frames"; `total` is 0 when it isn't known; `before` of them
  // were done by an earlier run.
  ProgressBar(std::ostream& out, bool is_terminal, const char* unit, int64_t total,
              int64_t before = 0);

  // Shows how many are done, how fast, and how long it will take; `done` are those of this run.
  void Show(int64_t done, double per_second, absl::Time now);

  // Removes the line, so that something else can be printed.
  void Clear();

 private:
  std::ostream& out_;
  const bool is_terminal_;
  const char* const unit_;
  const int64_t total_;
  const int64_t before_;
  absl::Time shown_at_;
  bool visible_ = false;
};

}  // namespace client
}  // namespace millrace
