// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/batch_policy.h"

#include <algorithm>

namespace millrace {

absl::Time BatchPolicy::GoAt(const State& state) const {
  if (state.closed || max_queue_delay == absl::ZeroDuration()) return absl::InfinitePast();
  const bool preferred = std::find(preferred_sizes.begin(), preferred_sizes.end(), state.rows) !=
                         preferred_sizes.end();
  return preferred ? absl::InfinitePast() : state.oldest_arrival + max_queue_delay;
}

}  // namespace millrace
