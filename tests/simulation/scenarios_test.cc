// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// The scenarios of ./dev simulate, shorter: each goal is an assertion.
#include "tests/simulation/scenarios.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

// Runs a shorter scenario and expects every goal to be met. It is not too short if another seed
// gives the same answer.
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

TEST(Hold, RaisesTheThroughputOfClosedLoopStreams) { ExpectGoalsMet(ThirtyTwoStreams, 0.05); }
TEST(Hold, CostsAQuickModelNothing) { ExpectGoalsMet(ThirtyTwoStreamsOfAQuickModel, 0.05); }
TEST(Hold, LeavesEachReplicaItsShare) { ExpectGoalsMet(SixtyFourStreamsOnFourReplicas, 0.05); }
TEST(Hold, RaisesTheThroughputOfStreamsAmongUsers) {
  ExpectGoalsMet(FastStreamsAmongSlowUsers, 0.05);
}
TEST(Hold, ChangesNothingForUsers) { ExpectGoalsMet(FiveHundredUsers); }
TEST(Hold, ChangesNothingForBursts) { ExpectGoalsMet(Bursts); }
TEST(Hold, ChangesNothingForCallsAtAnyLoad) { ExpectGoalsMet(LoadCurve, 0.15); }

TEST(Fairness, EqualFlowsGetEqualServiceWhateverTheirWindows) { ExpectGoalsMet(EqualFlows); }
TEST(Fairness, EqualFlowsGetEqualServiceAtAFullQueue) { ExpectGoalsMet(EqualFlowsAtAFullQueue); }
TEST(Fairness, WeightsAreHonoured) { ExpectGoalsMet(Weights); }
TEST(Fairness, RowsCountNotRequests) { ExpectGoalsMet(LargeRequests); }
TEST(Fairness, ModestFlowDoesNotWaitForAGreedyOne) { ExpectGoalsMet(ModestBesideGreedy); }
TEST(Fairness, UrgentRequestsOfAModestFlowMakeIt) { ExpectGoalsMet(UrgentBesideBacklog); }

TEST(Priority, IsStrictAndWastesNothing) { ExpectGoalsMet(PriorityIsStrict); }
TEST(Priority, StarvationGuardBoundsTheWaitOfTheLowest) { ExpectGoalsMet(StarvationGuard); }

TEST(ShapeGroups, NoShapeWaitsAtTheHeadOfAnothersLine) { ExpectGoalsMet(Shapes); }

TEST(Overload, GoodputOfAShortQueueStays) { ExpectGoalsMet(GoodputOfAShortQueue, 0.05); }
TEST(Overload, GoodputOfALongQueueStays) { ExpectGoalsMet(GoodputOfALongQueue, 0.05); }
TEST(Overload, LatencyOfTheAcceptedIsBounded) { ExpectGoalsMet(AcceptedLatency); }

TEST(Deadlines, HardlyMoreAreMissedThanByAnOmniscientScheduler) {
  ExpectGoalsMet(Deadlines, 0.2);  // A flow's share of one in a hundred takes many requests.
}

TEST(LiveVideo, LatestFramesAreFresh) { ExpectGoalsMet(LatestFrames); }
TEST(LiveVideo, FramesThatDropTheOldestAreFresh) { ExpectGoalsMet(DroppedOldestFrames); }
TEST(LiveVideo, NoFrameIsOlderThanItsStreamAllows) { ExpectGoalsMet(OldFrames); }

}  // namespace
}  // namespace millrace
