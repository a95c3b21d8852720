// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/cost_table.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

RowShape ShapeOf(int64_t width) {
  RowShape shape;
  shape.dims.push_back({width});
  return shape;
}

class CostTableTest : public testing::Test {
 protected:
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  CostTable costs_;
};

TEST_F(CostTableTest, UnknownShapesCostNothingButARowCostsSomething) {
  EXPECT_EQ(costs_.Find(ShapeOf(1), ReplicaKind::kCpu), nullptr);
  EXPECT_EQ(costs_.Predict(ShapeOf(1), 4), absl::ZeroDuration());
  EXPECT_GT(costs_.RowCost(ShapeOf(1), 4), 0);
  EXPECT_FALSE(costs_.IsFresh(ShapeOf(1), now_));
  EXPECT_EQ(costs_.latest(), nullptr);
}

TEST_F(CostTableTest, ShapesAndKindsAreApart) {
  costs_.Observe(ShapeOf(1), ReplicaKind::kCpu, 1, absl::Milliseconds(8), now_);
  costs_.Observe(ShapeOf(1), ReplicaKind::kGpu, 1, absl::Milliseconds(2), now_);
  costs_.Observe(ShapeOf(2), ReplicaKind::kCpu, 1, absl::Milliseconds(5), now_);
  EXPECT_EQ(costs_.Find(ShapeOf(1), ReplicaKind::kCpu)->Predict(1), absl::Milliseconds(8));
  EXPECT_EQ(costs_.Predict(ShapeOf(1), 1), absl::Milliseconds(2));  // The fastest.
  EXPECT_EQ(costs_.Predict(ShapeOf(2), 1), absl::Milliseconds(5));
  EXPECT_EQ(costs_.Find(ShapeOf(2), ReplicaKind::kGpu), nullptr);
}

TEST_F(CostTableTest, FirstGuessesGiveWayToWhatHasRun) {
  costs_.Expect(ShapeOf(1), ReplicaKind::kCpu, 1, absl::Milliseconds(50));
  EXPECT_EQ(costs_.Predict(ShapeOf(1), 1), absl::Milliseconds(50));
  EXPECT_FALSE(costs_.IsFresh(ShapeOf(1), now_));  // Nobody is refused for a guess.
  for (int i = 0; i < 50; ++i) {
    costs_.Observe(ShapeOf(1), ReplicaKind::kCpu, 1, absl::Milliseconds(5), now_);
  }
  costs_.Expect(ShapeOf(1), ReplicaKind::kCpu, 1, absl::Seconds(9));  // A replica that is replaced.
  EXPECT_NEAR(absl::ToDoubleMilliseconds(costs_.Predict(ShapeOf(1), 1)), 5, 0.5);
}

TEST_F(CostTableTest, PredictionsAreFreshForASecondOrThreeBatches) {
  costs_.Observe(ShapeOf(1), ReplicaKind::kCpu, 1, absl::Milliseconds(5), now_);
  EXPECT_TRUE(costs_.IsFresh(ShapeOf(1), now_ + absl::Milliseconds(900)));
  EXPECT_FALSE(costs_.IsFresh(ShapeOf(1), now_ + absl::Milliseconds(1100)));
  costs_.Observe(ShapeOf(2), ReplicaKind::kCpu, 1, absl::Seconds(5), now_);
  EXPECT_TRUE(costs_.IsFresh(ShapeOf(2), now_ + absl::Seconds(14)));
  EXPECT_FALSE(costs_.IsFresh(ShapeOf(2), now_ + absl::Seconds(16)));
}

TEST_F(CostTableTest, ForgetsTheShapesThatWereUsedLongestAgo) {
  for (int64_t width = 1; width <= 1000; ++width) {
    costs_.Observe(ShapeOf(width), ReplicaKind::kCpu, 1, absl::Milliseconds(width), now_);
    // One that is used in between stays.
    costs_.Observe(ShapeOf(1), ReplicaKind::kCpu, 1, absl::Milliseconds(1), now_);
  }
  EXPECT_EQ(costs_.Latest().size(), 256);
  EXPECT_NE(costs_.Find(ShapeOf(1), ReplicaKind::kCpu), nullptr);
  EXPECT_NE(costs_.Find(ShapeOf(1000), ReplicaKind::kCpu), nullptr);
  EXPECT_EQ(costs_.Find(ShapeOf(2), ReplicaKind::kCpu), nullptr);
  EXPECT_EQ(*costs_.Latest()[0].shape, ShapeOf(1));
  EXPECT_EQ(*costs_.latest()->shape, ShapeOf(1));
}

}  // namespace
}  // namespace millrace
