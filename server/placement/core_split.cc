// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/placement/core_split.h"

#include <algorithm>
#include <cmath>

namespace millrace {
namespace {

constexpr double kSlack = 0.1;     // Of a core.
constexpr double kNothing = 1e-9;  // Within what arithmetic errs.

// The cores for a share, and whole cores of it; `now` where the share is near enough to that.
int RoundUp(double share, int now) {
  return share > now - 1 - kSlack && share <= now + kSlack
             ? now
             : static_cast<int>(std::ceil(share - kNothing));
}
int RoundDown(double share, int now) {
  return share >= now - kSlack && share < now + 1 + kSlack
             ? now
             : static_cast<int>(std::floor(share + kNothing));
}

}  // namespace

CoreSplit SplitCores(int slots, absl::Span<const StageCost> costs, double transform_busy,
                     const CoreSplit& now) {
  double prepare = 0;
  double both = 0;
  for (const StageCost& cost : costs) {
    prepare += cost.rows * absl::ToDoubleSeconds(cost.prepare);
    both += cost.rows * absl::ToDoubleSeconds(cost.prepare + cost.execute);
  }
  CoreSplit split = now;
  double share = now.transform;
  if (both > 0) {
    share = slots * prepare / both;
    split.transform = std::clamp(RoundUp(share, now.transform), 1, slots);
  }
  const int given_up = RoundDown(std::min(share, transform_busy), slots - now.replicas);
  split.replicas = std::clamp(slots - given_up, 1, slots);
  return split;
}

}  // namespace millrace
