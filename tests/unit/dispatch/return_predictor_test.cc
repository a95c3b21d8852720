// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/return_predictor.h"

#include <gtest/gtest.h>

#include <random>

namespace millrace {
namespace {

constexpr absl::Duration kSetup = absl::Milliseconds(5);

class ReturnPredictorTest : public testing::Test {
 protected:
  // A flow that answers come to every 10 ms, and that asks again `think` later.
  void Teach(uint64_t flow, absl::Duration think, int times = 20) {
    absl::Time when = now_ - times * absl::Milliseconds(10);
    for (int i = 0; i < times; ++i, when += absl::Milliseconds(10)) {
      predictor_.Answered(flow, when);
      predictor_.Arrived(flow, when + think);
    }
  }

  absl::Duration HoldFor(int64_t rows, int64_t most_rows = 64, int sharing = 1) {
    return predictor_.HoldUntil(now_, rows, most_rows, sharing, kSetup) - now_;
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  ReturnPredictor predictor_;
};

TEST_F(ReturnPredictorTest, NobodyIsWaitedForOfWhomNothingIsKnown) {
  predictor_.Answered(1, now_);
  EXPECT_LE(HoldFor(1), absl::ZeroDuration());
}

TEST_F(ReturnPredictorTest, ThoseAboutToReturnAreWaitedFor) {
  for (uint64_t flow = 1; flow <= 8; ++flow) {
    Teach(flow, absl::Microseconds(500));
    predictor_.Answered(flow, now_);
  }
  EXPECT_GE(HoldFor(8), absl::Microseconds(500));
  EXPECT_LE(HoldFor(8), absl::Milliseconds(1));
}

TEST_F(ReturnPredictorTest, WaitingMustSpareMoreThanItCosts) {
  Teach(1, absl::Milliseconds(1));
  predictor_.Answered(1, now_);
  EXPECT_GT(HoldFor(3), absl::ZeroDuration());   // 3 rows · 1.3 ms against a setup of 5 ms.
  EXPECT_LE(HoldFor(10), absl::ZeroDuration());  // 10 rows · 1.3 ms.
}

TEST_F(ReturnPredictorTest, WhoHasReturnedIsNotWaitedFor) {
  Teach(1, absl::Microseconds(500));
  predictor_.Answered(1, now_);
  predictor_.Arrived(1, now_);
  EXPECT_LE(HoldFor(1), absl::ZeroDuration());
}

TEST_F(ReturnPredictorTest, WhoThinksForLongerThanASetupIsNotWaitedFor) {
  Teach(1, absl::Milliseconds(6));
  predictor_.Answered(1, now_);
  EXPECT_LE(HoldFor(1), absl::ZeroDuration());
}

TEST_F(ReturnPredictorTest, WhoComesByChanceIsNotWaitedFor) {
  std::mt19937_64 random(1);
  std::exponential_distribution<> think(1 / 2e-3);  // Two milliseconds in the mean.
  absl::Time when = now_ - absl::Seconds(2);
  for (int i = 0; i < 200; ++i, when += absl::Milliseconds(10)) {
    predictor_.Answered(1, when);
    predictor_.Arrived(1, when + absl::Seconds(think(random)));
  }
  predictor_.Answered(1, now_);
  EXPECT_LE(HoldFor(1), absl::ZeroDuration());
}

TEST_F(ReturnPredictorTest, FullBatchesGo) {
  Teach(1, absl::Microseconds(500));
  predictor_.Answered(1, now_);
  EXPECT_LE(HoldFor(8, 8), absl::ZeroDuration());
}

TEST_F(ReturnPredictorTest, IdleReplicasShareThoseWhoReturn) {
  for (uint64_t flow = 1; flow <= 12; ++flow) {
    Teach(flow, absl::Microseconds(500));
    predictor_.Answered(flow, now_);
  }
  EXPECT_GT(HoldFor(4, 64, 1), absl::ZeroDuration());
  EXPECT_LE(HoldFor(4, 64, 4), absl::ZeroDuration());  // A quarter of 16 is there.
}

TEST_F(ReturnPredictorTest, RemembersABoundedNumberOfFlows) {
  for (uint64_t flow = 1; flow < 100000; ++flow) predictor_.Answered(flow, now_);
  Teach(7, absl::Microseconds(500));
  predictor_.Answered(7, now_);
  EXPECT_GT(HoldFor(1), absl::ZeroDuration());
}

}  // namespace
}  // namespace millrace
