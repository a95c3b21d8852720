// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/replica_scaler.h"

#include <algorithm>
#include <cmath>

namespace millrace {

int ReplicaScaler::Decide(int count, double utilisation, absl::Time now) {
  const double busy = utilisation * count;  // Replicas' worth of work.
  const bool too_busy = utilisation > options_.grow_above;
  const bool too_idle = count > 1 && busy < options_.shrink_below * (count - 1);
  busy_since_ = too_busy ? std::min(busy_since_, now) : absl::InfiniteFuture();
  idle_since_ = too_idle ? std::min(idle_since_, now) : absl::InfiniteFuture();
  int wanted = count;
  if (now - busy_since_ >= options_.grow_after) {
    // As many as would be busy to the bound, but no more than twice as many: what is asked of full
    // replicas isn't known.
    wanted =
        std::clamp(static_cast<int>(std::ceil(busy / options_.grow_above)), count + 1, 2 * count);
    busy_since_ = absl::InfiniteFuture();
  } else if (now - idle_since_ >= options_.shrink_after) {
    --wanted;
    idle_since_ = absl::InfiniteFuture();
  }
  return std::clamp(wanted, options_.least, options_.most);
}

}  // namespace millrace
