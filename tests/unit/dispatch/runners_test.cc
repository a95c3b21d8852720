// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/runners.h"

#include <gtest/gtest.h>

#include <memory>

namespace millrace {
namespace {

class IdleRunner final : public BatchRunner {
 public:
  explicit IdleRunner(int cores = 0) : cores_(cores) {}
  void Run(std::unique_ptr<Batch>) override {}
  int lease_cores() const override { return cores_; }

 private:
  const int cores_;
};

class RunnersTest : public testing::Test {
 protected:
  absl::Time now_ = absl::UnixEpoch();
  IdleRunner a_, b_, cpu_{2};
  Runners runners_;
};

TEST_F(RunnersTest, TheOneThatWasBusyLastIsNextAndOneWithoutALeaseBeforeThat) {
  EXPECT_EQ(runners_.Next(), nullptr);
  runners_.AddIdle(&a_, now_);
  runners_.AddIdle(&b_, now_);
  runners_.AddIdle(&cpu_, now_);
  EXPECT_EQ(runners_.Next(), &b_);
  runners_.Start(&b_, now_, now_);
  EXPECT_EQ(runners_.Next(), &a_);
  runners_.Start(&a_, now_, now_);
  EXPECT_EQ(runners_.Next(), &cpu_);
  runners_.AddIdle(&b_, now_);
  runners_.AddIdle(&a_, now_);
  EXPECT_EQ(runners_.Next(), &a_);
}

TEST_F(RunnersTest, AsManyRunAtATimeAsTheCoresCarryAndOneAtLeast) {
  IdleRunner second{2}, third{2};
  EXPECT_EQ(runners_.at_a_time(ReplicaKind::kCpu, 8), 0);
  for (IdleRunner* one : {&cpu_, &second, &third}) runners_.AddIdle(one, now_);
  runners_.Start(&third, now_, now_);
  EXPECT_EQ(runners_.at_a_time(ReplicaKind::kCpu, 8), 3);
  EXPECT_EQ(runners_.at_a_time(ReplicaKind::kCpu, 5), 2);
  EXPECT_EQ(runners_.at_a_time(ReplicaKind::kCpu, 1), 1);
  runners_.AddIdle(&a_, now_);
  EXPECT_EQ(runners_.at_a_time(ReplicaKind::kGpu, 0), 1);
}

TEST_F(RunnersTest, KnowsWhenTheyWillBeIdle) {
  runners_.AddIdle(&a_, now_);
  runners_.AddIdle(&b_, now_);
  runners_.Start(&a_, now_ + absl::Seconds(3), now_);
  EXPECT_EQ(runners_.UntilFirstIdle(now_), absl::ZeroDuration());
  runners_.Start(&b_, now_ + absl::Seconds(2), now_);
  EXPECT_EQ(runners_.UntilFirstIdle(now_), absl::Seconds(2));
  EXPECT_EQ(runners_.UntilAllIdle(now_), absl::Seconds(5));
  // Late ones are expected at once.
  EXPECT_EQ(runners_.UntilFirstIdle(now_ + absl::Seconds(9)), absl::ZeroDuration());
  EXPECT_EQ(runners_.UntilAllIdle(now_ + absl::Seconds(9)), absl::ZeroDuration());
}

TEST_F(RunnersTest, RetiringOneLeavesAtOnceOrAfterItsBatch) {
  runners_.AddIdle(&a_, now_);
  runners_.AddIdle(&b_, now_);
  EXPECT_TRUE(runners_.Retire(&a_, now_));
  EXPECT_EQ(runners_.Next(), &b_);
  runners_.Start(&b_, now_, now_);
  EXPECT_FALSE(runners_.Retire(&b_, now_));
  EXPECT_EQ(runners_.all(), 1);
  runners_.AddIdle(&b_, now_);
  EXPECT_EQ(runners_.all(), 0);
  EXPECT_EQ(runners_.Next(), nullptr);
  runners_.AddIdle(&b_, now_);  // It is new again.
  EXPECT_EQ(runners_.Next(), &b_);
}

TEST_F(RunnersTest, CountsThemByKindAndWhoeverLeaves) {
  runners_.AddIdle(&a_, now_);
  runners_.AddIdle(&cpu_, now_);
  runners_.Start(&cpu_, now_, now_);
  EXPECT_EQ(runners_.idle(), 1);
  EXPECT_EQ(runners_.all(), 2);
  EXPECT_EQ(runners_.all(ReplicaKind::kGpu), 1);
  EXPECT_EQ(runners_.all(ReplicaKind::kCpu), 1);
  EXPECT_FALSE(runners_.RemoveIdle(&cpu_, now_));
  EXPECT_TRUE(runners_.RemoveIdle(&a_, now_));
  runners_.RemoveBusy(&cpu_, now_);
  EXPECT_EQ(runners_.all(), 0);
}

TEST_F(RunnersTest, UtilisationIsTheShareOfTheBusy) {
  runners_.AddIdle(&a_, now_);
  runners_.AddIdle(&b_, now_);
  runners_.Start(&a_, now_, now_);
  EXPECT_NEAR(runners_.utilisation(now_ + absl::Minutes(1)), 0.5, 1e-6);
  runners_.Start(&b_, now_, now_ + absl::Minutes(1));
  EXPECT_NEAR(runners_.utilisation(now_ + absl::Minutes(2)), 1, 1e-6);
}

}  // namespace
}  // namespace millrace
