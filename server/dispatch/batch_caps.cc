// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/batch_caps.h"

#include <algorithm>

namespace millrace {
namespace {

constexpr size_t kMostShapes = 256;

}  // namespace

void BatchCaps::RanOut(const RowShape& shape, int64_t rows, absl::Time now) {
  if (rows <= 1) {
    caps_.erase(shape);
    return;
  }
  if (caps_.size() >= kMostShapes && !caps_.contains(shape)) caps_.clear();
  caps_[shape] = {.rows = rows / 2, .since = now};
}

int64_t BatchCaps::For(const RowShape& shape, int64_t most, absl::Time now) const {
  if (caps_.empty()) return most;
  const auto found = caps_.find(shape);
  if (found == caps_.end()) return most;
  const int64_t doublings = std::clamp<int64_t>((now - found->second.since) / kDoublesAfter, 0, 32);
  return std::min(most, found->second.rows << doublings);
}

}  // namespace millrace
