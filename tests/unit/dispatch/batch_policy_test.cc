// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/batch_policy.h"

#include <gtest/gtest.h>

#include <vector>

namespace millrace {
namespace {

TEST(BatchPolicy, SaysWhenABatchMayGo) {
  const absl::Time arrival = absl::UnixEpoch() + absl::Hours(1);
  const absl::Duration delay = absl::Milliseconds(5);
  const absl::Duration none = absl::ZeroDuration();
  const absl::Time at_once = absl::InfinitePast();
  const struct {
    std::vector<int64_t> preferred;
    absl::Duration delay;
    int64_t rows;
    bool closed;
    absl::Time go_at;
  } cases[] = {
      {{}, none, 1, false, at_once},
      {{4}, none, 3, false, at_once},
      {{}, delay, 1, false, arrival + delay},
      {{}, delay, 1, true, at_once},
      {{4, 8}, delay, 3, false, arrival + delay},
      {{4, 8}, delay, 4, false, at_once},
      {{4, 8}, delay, 5, false, arrival + delay},
      {{4, 8}, delay, 8, false, at_once},
      {{4, 8}, delay, 3, true, at_once},
      {{}, absl::InfiniteDuration(), 1, false, absl::InfiniteFuture()},
  };
  for (const auto& [preferred, most_delay, rows, closed, go_at] : cases) {
    const BatchPolicy policy = {.preferred_sizes = preferred, .max_queue_delay = most_delay};
    EXPECT_EQ(policy.GoAt({.rows = rows, .closed = closed, .oldest_arrival = arrival}), go_at)
        << rows << " rows, delay " << most_delay << (closed ? ", closed" : "");
  }
}

}  // namespace
}  // namespace millrace
