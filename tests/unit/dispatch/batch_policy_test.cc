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

TEST(BatchPolicy, HoldsUntilItsTimeUnlessTheBatchIsClosed) {
  const absl::Time until = absl::UnixEpoch() + absl::Hours(1);
  const BatchPolicy policy;
  EXPECT_EQ(policy.GoAt({.rows = 1, .oldest_arrival = until, .hold_until = until}), until);
  EXPECT_EQ(policy.GoAt({.rows = 1, .closed = true, .oldest_arrival = until, .hold_until = until}),
            absl::InfinitePast());
}

// A model that takes setup + per_row · rows.
CostModel Cost(absl::Duration setup, absl::Duration per_row) {
  CostModel cost;
  for (int i = 0; i < 200; ++i) cost.Observe(1 + i % 16, setup + (1 + i % 16) * per_row);
  return cost;
}

TEST(BatchPolicy, IdleReplicasShareWhatWaitsWhereThatIsFaster) {
  const CostModel rows_count = Cost(absl::Milliseconds(1), absl::Milliseconds(4));
  EXPECT_EQ(BatchPolicy::RowsPerReplica(8, 16, 2, 0.1, rows_count), 4);
  EXPECT_EQ(BatchPolicy::RowsPerReplica(9, 16, 4, 0.1, rows_count), 3);
  EXPECT_EQ(BatchPolicy::RowsPerReplica(100, 16, 4, 0.1, rows_count), 4);
}

TEST(BatchPolicy, OneReplicaTakesAllWhereSharingIsOfNoUse) {
  const CostModel rows_count = Cost(absl::Milliseconds(1), absl::Milliseconds(4));
  const CostModel setup_counts = Cost(absl::Milliseconds(5), absl::Microseconds(10));
  EXPECT_EQ(BatchPolicy::RowsPerReplica(8, 16, 2, 0.1, setup_counts), 16);
  EXPECT_EQ(BatchPolicy::RowsPerReplica(8, 16, 2, 0.7, rows_count), 16);  // Too busy.
  EXPECT_EQ(BatchPolicy::RowsPerReplica(8, 16, 1, 0.1, rows_count), 16);
  EXPECT_EQ(BatchPolicy::RowsPerReplica(1, 16, 2, 0.1, rows_count), 16);
  EXPECT_EQ(BatchPolicy::RowsPerReplica(8, 16, 2, 0.1, CostModel()), 16);
  const CostModel quick = Cost(absl::Microseconds(1), absl::Microseconds(200));
  EXPECT_EQ(BatchPolicy::RowsPerReplica(8, 16, 2, 0.1, quick), 16);  // 0.8 ms sooner.
}

TEST(BatchPolicy, BatchesThatAreInTimeAreNotCut) {
  const CostModel cost = Cost(absl::Milliseconds(1), absl::Milliseconds(1));
  const BatchPolicy::Cut cut = BatchPolicy::CutFor(absl::Milliseconds(9.5), 8, true, cost);
  EXPECT_EQ(cut.rows, 8);
  EXPECT_FALSE(cut.drop_urgent);
}

TEST(BatchPolicy, BatchesAreCutToWhatIsInTimeWhereNobodyElseWaits) {
  const CostModel cost = Cost(absl::Milliseconds(1), absl::Milliseconds(1));
  EXPECT_EQ(BatchPolicy::CutFor(absl::Milliseconds(4.5), 8, false, cost).rows, 3);
  EXPECT_EQ(BatchPolicy::CutFor(absl::Milliseconds(2.5), 8, false, cost).rows, 1);
}

TEST(BatchPolicy, WhileOthersWaitBatchesAreCutOnlyWhereThatCostsLittle) {
  const CostModel rows_count = Cost(absl::Microseconds(10), absl::Milliseconds(1));
  const CostModel setup_counts = Cost(absl::Milliseconds(5), absl::Microseconds(100));
  EXPECT_EQ(BatchPolicy::CutFor(absl::Milliseconds(4.5), 8, true, rows_count).rows, 4);
  EXPECT_TRUE(BatchPolicy::CutFor(absl::Milliseconds(5.5), 16, true, setup_counts).drop_urgent);
}

}  // namespace
}  // namespace millrace
