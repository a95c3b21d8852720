// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// The scenarios of ./dev simulate, shorter: each goal is an assertion.
#include "tests/simulation/scenarios.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

// Runs a scenario at a tenth of its length and expects every goal to be met.
void ExpectGoalsMet(void (*scenario)(const Effort&, Report&), double scale = 0.1) {
  Report report;
  scenario({.seed = 1, .scale = scale}, report);
  int goals = 0;
  for (const Figure& figure : report.figures) {
    goals += figure.goal.has_value() ? 1 : 0;
    EXPECT_TRUE(figure.met()) << ToString(figure);
  }
  EXPECT_GT(goals, 0) << "A scenario without a goal proves nothing.";
}

TEST(Hold, RaisesTheThroughputOfClosedLoopStreams) { ExpectGoalsMet(ThirtyTwoStreams); }
TEST(Hold, CostsAQuickModelNothing) { ExpectGoalsMet(ThirtyTwoStreamsOfAQuickModel); }
TEST(Hold, LeavesEachReplicaItsShare) { ExpectGoalsMet(SixtyFourStreamsOnFourReplicas); }
TEST(Hold, RaisesTheThroughputOfStreamsAmongUsers) { ExpectGoalsMet(FastStreamsAmongSlowUsers); }
TEST(Hold, ChangesNothingForUsers) { ExpectGoalsMet(FiveHundredUsers); }
TEST(Hold, ChangesNothingForBursts) { ExpectGoalsMet(Bursts); }
TEST(Hold, ChangesNothingForCallsAtAnyLoad) { ExpectGoalsMet(LoadCurve); }

TEST(Fairness, EqualFlowsGetEqualServiceWhateverTheirWindows) { ExpectGoalsMet(EqualFlows); }
TEST(Fairness, EqualFlowsGetEqualServiceAtAFullQueue) { ExpectGoalsMet(EqualFlowsAtAFullQueue); }
TEST(Fairness, WeightsAreHonoured) { ExpectGoalsMet(Weights); }
TEST(Fairness, RowsCountNotRequests) { ExpectGoalsMet(LargeRequests); }
TEST(Fairness, ModestFlowDoesNotWaitForAGreedyOne) { ExpectGoalsMet(ModestBesideGreedy); }

TEST(Priority, IsStrictAndWastesNothing) { ExpectGoalsMet(PriorityIsStrict); }
TEST(Priority, StarvationGuardBoundsTheWaitOfTheLowest) { ExpectGoalsMet(StarvationGuard); }

TEST(ShapeGroups, NoShapeWaitsAtTheHeadOfAnothersLine) { ExpectGoalsMet(Shapes); }

TEST(Overload, GoodputOfAShortQueueStays) { ExpectGoalsMet(GoodputOfAShortQueue); }
TEST(Overload, GoodputOfALongQueueStays) { ExpectGoalsMet(GoodputOfALongQueue); }
TEST(Overload, LatencyOfTheAcceptedIsBounded) { ExpectGoalsMet(AcceptedLatency); }

TEST(Deadlines, HardlyMoreAreMissedThanByAnOmniscientScheduler) {
  ExpectGoalsMet(Deadlines, 0.5);  // A flow's share of one in a hundred takes many requests.
}

TEST(LiveVideo, LatestFramesAreFresh) { ExpectGoalsMet(LatestFrames); }
TEST(LiveVideo, FramesThatDropTheOldestAreFresh) { ExpectGoalsMet(DroppedOldestFrames); }
TEST(LiveVideo, NoFrameIsOlderThanItsStreamAllows) { ExpectGoalsMet(OldFrames); }

}  // namespace
}  // namespace millrace
