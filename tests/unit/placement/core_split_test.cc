// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/placement/core_split.h"

#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <random>

#include "tests/fakes/seed.h"

namespace millrace {

void PrintTo(const CoreSplit& split, std::ostream* out) {
  *out << "{" << split.transform << ", " << split.replicas << "}";
}

namespace {

constexpr CoreSplit kAll16 = {.transform = 16, .replicas = 16};

StageCost Cost(double prepare_ms, double execute_ms, double rows = 1) {
  return {absl::Milliseconds(prepare_ms), absl::Milliseconds(execute_ms), rows};
}

TEST(CoreSplit, EachStageGetsItsPartOfTheWork) {
  // The transform stage has a quarter of the work, and is at it on four cores.
  EXPECT_EQ(SplitCores(16, {Cost(2, 6)}, 4, kAll16), (CoreSplit{4, 12}));
  EXPECT_EQ(SplitCores(16, {Cost(9, 3)}, 12, kAll16), (CoreSplit{12, 4}));
  EXPECT_EQ(SplitCores(3, {Cost(5, 4)}, 2, {3, 3}), (CoreSplit{2, 2}));
}

TEST(CoreSplit, PartsOfACoreAreRoundedUpForBoth) {
  EXPECT_EQ(SplitCores(16, {Cost(1.4, 30)}, 0.7, kAll16), (CoreSplit{1, 16}));
  EXPECT_EQ(SplitCores(2, {Cost(1.4, 30)}, 0.1, {2, 2}), (CoreSplit{1, 2}));
  EXPECT_EQ(SplitCores(4, {Cost(10, 6)}, 2.5, {4, 4}), (CoreSplit{3, 2}));
}

TEST(CoreSplit, ModelsWeighByTheirRows) {
  EXPECT_EQ(SplitCores(16, {Cost(1, 1, 1), Cost(1, 7, 1)}, 16, kAll16), (CoreSplit{4, 13}));
  EXPECT_EQ(SplitCores(16, {Cost(1, 1, 1000), Cost(1, 7, 1)}, 16, kAll16), (CoreSplit{8, 9}));
}

TEST(CoreSplit, ModelsWithoutPicturesCountForTheReplicas) {
  EXPECT_EQ(SplitCores(8, {Cost(4, 0), Cost(0, 12)}, 8, {8, 8}), (CoreSplit{2, 6}));
}

TEST(CoreSplit, OneCoreIsSharedAndGpusLeaveAllCores) {
  EXPECT_EQ(SplitCores(1, {Cost(1, 9)}, 1, {1, 1}), (CoreSplit{1, 1}));
  EXPECT_EQ(SplitCores(1, {Cost(9, 1)}, 1, {1, 1}), (CoreSplit{1, 1}));
  EXPECT_EQ(SplitCores(16, {Cost(5, 0)}, 0, {1, 16}).transform, 16);
}

TEST(CoreSplit, ReplicasGetCoresBackWhenPicturesStop) {
  const CoreSplit busy = SplitCores(16, {Cost(2, 6)}, 4, kAll16);
  EXPECT_EQ(SplitCores(16, {Cost(2, 6)}, 1.5, busy), (CoreSplit{4, 15}));
  EXPECT_EQ(SplitCores(16, {Cost(2, 6)}, 0, busy), (CoreSplit{4, 16}));
  EXPECT_EQ(SplitCores(16, {}, 0, busy), (CoreSplit{4, 16})) << "Its models have gone.";
}

TEST(CoreSplit, NothingMeasuredChangesNothing) {
  EXPECT_EQ(SplitCores(16, {}, 0, kAll16), kAll16);
  EXPECT_EQ(SplitCores(16, {Cost(0, 0)}, 0, kAll16), kAll16);
}

TEST(CoreSplit, WaveringChangesNothing) {
  CoreSplit split = SplitCores(8, {Cost(2.5, 5.5)}, 2.5, {8, 8});
  ASSERT_EQ(split, (CoreSplit{3, 6}));
  for (const double prepare : {2.95, 3.05, 2.99, 3.01}) {  // Around three whole cores of eight.
    split = SplitCores(8, {Cost(prepare, 8 - prepare)}, prepare, split);
    EXPECT_EQ(split, (CoreSplit{3, 6})) << prepare;
  }
  EXPECT_EQ(SplitCores(8, {Cost(3.2, 4.8)}, 3.2, split), (CoreSplit{4, 5}));
}

// The promise, for whatever costs: either stage could keep up with the other, and hardly more is
// promised than there is.
TEST(CoreSplit, NeitherStarvesWhateverTheCosts) {
  std::mt19937 random(TestSeed());
  std::uniform_real_distribution<double> exponent(-2, 3);
  CoreSplit split = {1, 1};
  for (int round = 0; round < 10'000; ++round) {
    const int slots = std::uniform_int_distribution(1, 64)(random);
    const StageCost cost = Cost(std::pow(10, exponent(random)), std::pow(10, exponent(random)));
    const double share = slots * absl::FDivDuration(cost.prepare, cost.prepare + cost.execute);
    if (round % 2 == 0) split = {slots, slots};
    split = {std::min(split.transform, slots), std::min(split.replicas, slots)};
    split = SplitCores(slots, {cost}, share, split);
    SCOPED_TRACE(testing::Message() << slots << " cores, share " << share);
    ASSERT_GE(split.transform, 1);
    ASSERT_GE(split.replicas, 1);
    ASSERT_LE(std::max(split.transform, split.replicas), slots);
    ASSERT_GE(split.transform, share - 0.11);
    ASSERT_GE(split.replicas, slots - share - 0.11);
    ASSERT_LE(split.transform + split.replicas, slots + 2);
  }
}

}  // namespace
}  // namespace millrace
