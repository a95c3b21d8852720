// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/replica_scaler.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace millrace {
namespace {

class ReplicaScalerTest : public testing::Test {
 protected:
  // Asks four times a second for as long as it takes, under a load of so many replicas' worth, and
  // returns how many there are then.
  int CountAfter(absl::Duration time, double load) {
    for (const absl::Time end = now_ + time; now_ < end; now_ += absl::Milliseconds(250)) {
      const int decided = scaler_.Decide(count_, std::min(1.0, load / count_), now_);
      changes_ += decided != count_;
      count_ = decided;
    }
    return count_;
  }

  ReplicaScaler scaler_{{.least = 1, .most = 8}};
  absl::Time now_ = absl::UnixEpoch();
  int count_ = 1;
  int changes_ = 0;
};

TEST_F(ReplicaScalerTest, GrowsSoonAfterReplicasAreBusy) {
  EXPECT_EQ(CountAfter(absl::Milliseconds(900), 4), 1);
  EXPECT_EQ(CountAfter(absl::Milliseconds(600), 4), 2);
  EXPECT_EQ(CountAfter(absl::Seconds(10), 4), 5);
  EXPECT_EQ(CountAfter(absl::Seconds(10), 100), 8) << "as many as there may be";
}

TEST_F(ReplicaScalerTest, MomentOfLoadChangesNothing) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(CountAfter(absl::Milliseconds(500), 1), 1);
    EXPECT_EQ(CountAfter(absl::Milliseconds(500), 0.1), 1);
  }
}

TEST_F(ReplicaScalerTest, ShrinksOneAtATimeWhenTheRestWouldDo) {
  CountAfter(absl::Minutes(1), 4);
  EXPECT_EQ(CountAfter(absl::Seconds(55), 0.2), 5);
  EXPECT_EQ(CountAfter(absl::Seconds(10), 0.2), 4);
  EXPECT_EQ(CountAfter(absl::Minutes(10), 0.2), 1) << "as few as there may be";
}

TEST_F(ReplicaScalerTest, SteadyLoadLeadsToASteadyNumber) {
  for (double load = 0.1; load < 9; load += 0.1) {
    CountAfter(absl::Minutes(10), load);
    changes_ = 0;
    CountAfter(absl::Minutes(10), load);
    EXPECT_EQ(changes_, 0) << load;
  }
}

TEST_F(ReplicaScalerTest, CountBeyondTheBoundsReturnsToThem) {
  count_ = 12;
  EXPECT_EQ(CountAfter(absl::Milliseconds(250), 12), 8);
}

}  // namespace
}  // namespace millrace
