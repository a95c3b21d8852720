// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/restart_backoff.h"

#include <algorithm>

#include "absl/random/distributions.h"

namespace millrace {

absl::Duration RestartBackoff::NextPause(absl::Duration lived, absl::BitGenRef random) {
  if (lived >= options_.healthy_after) deaths_in_a_row_ = 0;
  ++deaths_in_a_row_;
  if (deaths_in_a_row_ == 1) return absl::ZeroDuration();
  const int doublings = std::min(deaths_in_a_row_ - 2, 16);
  const absl::Duration step = std::min(options_.most, options_.first * (1 << doublings));
  return step * absl::Uniform(random, 0.5, 1.0);
}

}  // namespace millrace
