// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/answer_book.h"
#include "tests/fakes/echo_model.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class FairQueueTest : public testing::Test {
 protected:
  // A flow by its name.
  std::shared_ptr<Caller> CallerOf(const std::string& name, int weight = 1) {
    std::shared_ptr<Caller>& caller = callers_[name];
    if (caller == nullptr) {
      caller = std::make_shared<Caller>(std::make_shared<Flow>(Flow::Options{.weight = weight}));
    }
    return caller;
  }

  PendingRequest& Make(const std::string& flow, int64_t rows = 1, int level = 1, int width = 1) {
    auto request = EchoPending(*signature_, std::vector<int32_t>(rows * width), rows,
                               book_->Expect(), CallerOf(flow));
    request->id = flow;
    request->level = level;
    request->tier = FairQueue::TierOf(level, false);
    request->arrival = absl::UnixEpoch() + absl::Seconds(made_.size());
    return *made_.emplace_back(std::move(request));
  }

  PendingRequest& Push(const std::string& flow, int64_t rows = 1, int level = 1, int width = 1) {
    PendingRequest& request = Make(flow, rows, level, width);
    queue_.Push(request);
    return request;
  }

  // Claims pieces for a batch of `room` rows and returns their flows.
  std::vector<std::string> Serve(int64_t room) {
    std::vector<std::string> served;
    ShapeGroup* const group = queue_.NextGroup([](const ShapeGroup&) { return true; });
    while (group != nullptr && group->lines > 0) {
      PendingRequest* const next = queue_.Next(*group, group->tier(), room, kCapacity, 1);
      if (next == nullptr) break;
      const int64_t rows = std::min(next->rows() - next->rows_claimed, kCapacity);
      served.push_back(next->id);
      queue_.Claim(*next, rows, static_cast<double>(rows));
      room -= rows;
    }
    return served;
  }

  static constexpr int64_t kCapacity = 8;
  const std::shared_ptr<const ModelSignature> signature_ = EchoSignature(kCapacity);
  const std::shared_ptr<AnswerBook> book_ = std::make_shared<AnswerBook>();
  std::map<std::string, std::shared_ptr<Caller>> callers_;
  std::vector<std::shared_ptr<PendingRequest>> made_;
  FairQueue queue_{3};
};

TEST_F(FairQueueTest, FlowsTakeTurnsWhateverTheyHaveWaiting) {
  for (int i = 0; i < 6; ++i) Push("greedy");
  Push("modest");
  Push("other");
  EXPECT_THAT(Serve(5), ElementsAre("greedy", "modest", "other", "greedy", "greedy"));
  EXPECT_EQ(queue_.rows(), 3);
}

TEST_F(FairQueueTest, TurnsCostWhatTheRowsCost) {
  for (int i = 0; i < 4; ++i) Push("large", 4);
  for (int i = 0; i < 16; ++i) Push("small");
  std::map<std::string, int64_t> rows;
  for (int batch = 0; batch < 2; ++batch) {
    for (const std::string& flow : Serve(8)) rows[flow] += flow == "large" ? 4 : 1;
  }
  EXPECT_EQ(rows["large"], 8);
  EXPECT_EQ(rows["small"], 8);
}

TEST_F(FairQueueTest, WeightsAreHonoured) {
  CallerOf("heavy", 3);
  for (int i = 0; i < 30; ++i) Push("heavy");
  for (int i = 0; i < 30; ++i) Push("light");
  int heavy = 0;
  for (int batch = 0; batch < 3; ++batch) {
    for (const std::string& flow : Serve(8)) heavy += flow == "heavy" ? 1 : 0;
  }
  EXPECT_EQ(heavy, 18);
}

TEST_F(FairQueueTest, AFlowsRequestsKeepTheirOrder) {
  std::vector<PendingRequest*> pushed;
  for (int i = 0; i < 5; ++i) pushed.push_back(&Push("a"));
  ShapeGroup* const group = queue_.NextGroup([](const ShapeGroup&) { return true; });
  for (PendingRequest* const expected : pushed) {
    PendingRequest* const next = queue_.Next(*group, group->tier(), 1, 1, 1);
    EXPECT_EQ(next, expected);
    queue_.Claim(*next, 1, 1);
  }
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FairQueueTest, HigherLevelsGoFirst) {
  Push("low", 1, 3);
  Push("middle", 1, 2);
  Push("high", 1, 1);
  EXPECT_THAT(Serve(8), ElementsAre("high", "middle", "low"));
}

TEST_F(FairQueueTest, DelayedRequestsGoAfterTheOthersOfTheirLevelAndBeforeTheNext) {
  PendingRequest& delayed = Make("delayed", 1, 1);
  delayed.tier = FairQueue::TierOf(1, true);
  queue_.Push(delayed);
  Push("next level", 1, 2);
  Push("on time", 1, 1);
  EXPECT_THAT(Serve(8), ElementsAre("on time", "delayed", "next level"));
}

TEST_F(FairQueueTest, WhoIsTooLargeForTheRestOfABatchIsFirstInTheNext) {
  Push("a", 6);
  Push("b", 6);
  Push("c", 2);
  EXPECT_THAT(Serve(8), ElementsAre("a", "c"));
  EXPECT_THAT(Serve(8), ElementsAre("b"));
}

TEST_F(FairQueueTest, LargerThanABatchIsServedInPiecesThatAreChargedOneByOne) {
  Push("huge", 20);
  Push("small");
  EXPECT_THAT(Serve(8), ElementsAre("huge"));
  EXPECT_EQ(queue_.rows(), 13);
  EXPECT_THAT(Serve(8), ElementsAre("small"));  // It has used 8 turns; what is left doesn't fit.
  EXPECT_THAT(Serve(8), ElementsAre("huge"));
  EXPECT_THAT(Serve(8), ElementsAre("huge"));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FairQueueTest, DebtIsPaidAlsoWhenTheFlowWasGone) {
  Push("a", 4);
  Push("b");
  EXPECT_THAT(Serve(4), ElementsAre("a"));  // And owes three turns.
  Push("a");
  for (int i = 0; i < 5; ++i) Push("b");
  EXPECT_THAT(Serve(5), ElementsAre("b", "b", "b", "b", "a"));
}

TEST_F(FairQueueTest, DebtsEndWhenNobodyWaits) {
  Push("a", 8);
  Serve(8);
  ASSERT_TRUE(queue_.empty());
  Push("a");
  Push("b");
  EXPECT_THAT(Serve(8), ElementsAre("a", "b"));
}

TEST_F(FairQueueTest, ShapesTakeTurnsByTheirFlows) {
  // Three flows want shape 1 and one wants shape 2; of equal costs it gets a quarter.
  for (int i = 0; i < 30; ++i) {
    for (const char* flow : {"a", "b", "c"}) Push(flow, 1, 1, 1);
    Push("d", 1, 1, 2);
  }
  int d = 0;
  for (int batch = 0; batch < 20; ++batch) {
    for (const std::string& flow : Serve(4)) d += flow == "d" ? 1 : 0;
  }
  EXPECT_EQ(d, 20);
}

TEST_F(FairQueueTest, AFlowOfMixedShapesIsServedInItsOrder) {
  Push("a", 1, 1, 1);
  Push("a", 1, 1, 2);
  Push("a", 1, 1, 1);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Serve(8), ElementsAre("a"));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FairQueueTest, PutBackIsFirstAgainAndGetsItsCostBack) {
  PendingRequest& first = Push("a");
  Push("a");
  Push("b");
  EXPECT_THAT(Serve(1), ElementsAre("a"));
  first.rows_claimed = 0;
  queue_.PutBack(first, 1);
  EXPECT_EQ(&FairQueue::FirstInLine(*made_[1]), &first);
  EXPECT_EQ(queue_.rows(), 3);
  EXPECT_EQ(queue_.oldest_arrival(), first.arrival);
  EXPECT_THAT(Serve(3), testing::UnorderedElementsAre("a", "a", "b"));
}

TEST_F(FairQueueTest, ADebtIsPaidWhileItsFlowIsAwayByTheShareOfTheOthers) {
  const auto turns_until_served = [&](int rounds_away) {
    Push("a", 8);
    Push("b");  // Somebody waits all the time, or there would be no debts.
    EXPECT_THAT(Serve(8), ElementsAre("a"));  // In one turn: seven more than its own.
    for (int i = 0; i < rounds_away; ++i) {
      Push("b");
      Push("c");
      Serve(2);
    }
    Push("a");
    int turns = 0;
    for (std::string served; served != "a"; ++turns) {
      Push("b");
      Push("c");
      served = Serve(1).front();
    }
    Serve(1000);  // All that is left.
    return turns;
  };
  EXPECT_GT(turns_until_served(0), 12);
  EXPECT_LE(turns_until_served(10), 3);
}

TEST_F(FairQueueTest, RemovedRequestsLeaveNoTrace) {
  Push("a", 2);
  PendingRequest& middle = Push("a", 3);
  PendingRequest& last = Push("a", 1, 1, 2);
  queue_.Remove(middle);
  EXPECT_EQ(queue_.rows(), 3);
  EXPECT_EQ(queue_.size(), 2);
  queue_.Remove(*made_[0]);
  EXPECT_THAT(Serve(8), ElementsAre("a"));
  EXPECT_EQ(last.rows_claimed, 1);
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.oldest_arrival(), absl::InfiniteFuture());
}

TEST_F(FairQueueTest, OverdueIsTheOldestBehindTheHighestTierInUse) {
  PendingRequest& low = Push("low", 1, 3);
  EXPECT_EQ(queue_.Overdue(absl::InfiniteFuture()), nullptr);  // Nobody is before it.
  Push("high", 1, 1);
  EXPECT_EQ(queue_.Overdue(low.arrival), nullptr);
  EXPECT_EQ(queue_.Overdue(low.arrival + absl::Nanoseconds(1)), &low);
}

TEST_F(FairQueueTest, WhoWaitsAtALowerLevelChangesNothingAboveIt) {
  for (int i = 0; i < 10; ++i) Push("low " + std::to_string(i), 1, 2, 1);
  std::map<std::string, int> served;
  for (int i = 0; i < 20; ++i) {
    Push("narrow", 1, 1, 1);
    Push("wide", 1, 1, 2);
  }
  for (int i = 0; i < 20; ++i) ++served[Serve(1).front()];
  EXPECT_EQ(served["narrow"], 10);
  EXPECT_EQ(served["wide"], 10);
}

TEST_F(FairQueueTest, TheLastOfTheFlowThatWaitsForMostIsTurnedOut) {
  for (int i = 0; i < 3; ++i) Push("a");
  for (int i = 0; i < 5; ++i) Push("b");
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("new")->flow(), 1, 1, 1), ElementsAre(made_.back().get()));
  // Not where the newcomer would have more than the other then.
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("new")->flow(), 5, 1, 5), IsEmpty());
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("b")->flow(), 1, 1, 1), IsEmpty());
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("new")->flow(), 1, 2, 1), IsEmpty());
}

TEST_F(FairQueueTest, NobodyIsTurnedOutInVain) {
  for (int i = 0; i < 3; ++i) Push("a");
  for (int i = 0; i < 5; ++i) Push("b");
  // Two rows for "new" leave two to each of the others, and no more can be had.
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("new")->flow(), 2, 1, 2),
              ElementsAre(made_[7].get(), made_[6].get()));
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("new")->flow(), 2, 1, 4), testing::SizeIs(4));
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("new")->flow(), 2, 1, 5), IsEmpty());
}

TEST_F(FairQueueTest, AFlowOfMoreWeightTurnsOutMore) {
  for (int i = 0; i < 6; ++i) Push("a");
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("light")->flow(), 4, 1, 4), IsEmpty());
  EXPECT_THAT(queue_.TurnOutFor(CallerOf("heavy", 4)->flow(), 4, 1, 4), testing::SizeIs(4));
}

TEST_F(FairQueueTest, CountsRowsAndLinesByLevel) {
  Push("a", 2, 1);
  Push("a", 3, 2);
  Push("b", 4, 2);
  EXPECT_EQ(queue_.rows(1), 2);
  EXPECT_EQ(queue_.rows(2), 7);
  EXPECT_EQ(queue_.RowsUpTo(2), 9);
  EXPECT_EQ(queue_.LinesUpTo(1), 1);
  EXPECT_EQ(queue_.LinesUpTo(2), 3);
  EXPECT_EQ(queue_.RowsOf(CallerOf("a")->flow(), 2), 3);
}

}  // namespace
}  // namespace millrace
