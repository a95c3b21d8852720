// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/candidates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::Not;
using ::testing::Pair;

std::vector<std::pair<int, int>> ShapesOf(const std::vector<Candidate>& candidates) {
  std::vector<std::pair<int, int>> shapes;
  for (const Candidate& each : candidates) shapes.emplace_back(each.replicas, each.threads);
  return shapes;
}

TEST(Candidates, LayoutsFillTheCoresOrPartOfThem) {
  EXPECT_THAT(ShapesOf(Layouts({.cores = 1}, {})), ElementsAre(Pair(1, 1)));
  EXPECT_THAT(ShapesOf(Layouts({.cores = 2}, {})), ElementsAre(Pair(2, 1), Pair(1, 1), Pair(1, 2)));
  EXPECT_THAT(ShapesOf(Layouts({.cores = 6}, {})),
              ElementsAre(Pair(6, 1), Pair(4, 1), Pair(2, 1), Pair(1, 1), Pair(3, 2), Pair(2, 2),
                          Pair(1, 2), Pair(1, 4), Pair(1, 6)));
}

TEST(Candidates, WhatTheConfigurationSaysIsNotVaried) {
  EXPECT_THAT(ShapesOf(Layouts({.cores = 4, .threads = 2}, {})),
              ElementsAre(Pair(2, 2), Pair(1, 2)));
  EXPECT_THAT(ShapesOf(Layouts({.cores = 4, .replicas = 3}, {})),
              ElementsAre(Pair(3, 1), Pair(3, 2), Pair(3, 4)));
  EXPECT_THAT(ShapesOf(Layouts({.cores = 1, .replicas = 3, .threads = 2}, {})),
              ElementsAre(Pair(3, 2)));
}

TEST(Candidates, BatchSizesAreTheMostAndPowersOfTwo) {
  const auto candidates = WithBatchSizes(Layouts({.cores = 1}, {}), 12);
  EXPECT_THAT(candidates,
              ElementsAre(Field(&Candidate::most_rows, 0), Field(&Candidate::most_rows, 8),
                          Field(&Candidate::most_rows, 4), Field(&Candidate::most_rows, 2),
                          Field(&Candidate::most_rows, 1)));
  EXPECT_EQ(WithBatchSizes(Layouts({.cores = 1}, {}), 0).size(), 1);
  EXPECT_EQ(WithBatchSizes(Layouts({.cores = 1}, {}), 1).size(), 1);
}

TEST(Candidates, OnlyTeamsWait) {
  const auto candidates = WithWaiting(Layouts({.cores = 2}, {}));
  ASSERT_EQ(candidates.size(), 4);
  EXPECT_EQ(candidates[2].threads, 2);
  EXPECT_EQ(candidates[2].mode->wait, ThreadWait::kPassive);
  EXPECT_EQ(candidates[3].threads, 2);
  EXPECT_EQ(candidates[3].mode->wait, ThreadWait::kActive);
}

TEST(Candidates, OversubscribedNeedMoreThanThereIs) {
  EXPECT_THAT(ShapesOf(Oversubscribed({.cores = 2}, {})),
              ElementsAre(Pair(1, 4), Pair(1, 8), Pair(1, 16), Pair(2, 2), Pair(2, 4), Pair(2, 8),
                          Pair(2, 16)));
  EXPECT_THAT(ShapesOf(Oversubscribed({.cores = 1}, {})),
              ElementsAre(Pair(1, 2), Pair(1, 4), Pair(1, 8), Pair(1, 16)));
}

TEST(Candidates, NamesSayWhatIsNotUsual) {
  Candidate candidate;
  candidate.replicas = 4;
  candidate.threads = 2;
  EXPECT_EQ(NameOf(candidate, 0), "4 x 2");
  EXPECT_EQ(NameOf(candidate, 16), "4 x 2, batches of 16");
  candidate.most_rows = 8;
  candidate.mode = ExecutionMode{.engine = EngineKind::kAotInductor,
                                 .bfloat16 = true,
                                 .channels_last = true,
                                 .wait = ThreadWait::kActive};
  EXPECT_EQ(NameOf(candidate, 16), "4 x 2, batches of 8, aotinductor bf16 channels-last active");
}

}  // namespace
}  // namespace millrace
