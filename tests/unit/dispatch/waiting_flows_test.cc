// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/waiting_flows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "server/dispatch/waiting_room.h"
#include "tests/fakes/answer_book.h"
#include "tests/fakes/echo_model.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class WaitingFlowsTest : public testing::Test {
 protected:
  std::shared_ptr<PendingRequest> Make(const std::shared_ptr<Caller>& caller, int level = 1) const {
    auto request = EchoPending(*signature_, {1}, 1, book_->Expect(), caller);
    request->level = level;
    request->tier = FairQueue::TierOf(level, false);
    return request;
  }
  std::shared_ptr<PendingRequest> Add(const std::shared_ptr<Caller>& caller, int level = 1) {
    std::shared_ptr<PendingRequest> request = Make(caller, level);
    flows_.AddPlace(request);
    return request;
  }

  const std::shared_ptr<const ModelSignature> signature_ = EchoSignature(8);
  const std::shared_ptr<AnswerBook> book_ = std::make_shared<AnswerBook>();
  const std::shared_ptr<const Flow> connection_ = std::make_shared<Flow>();
  const std::shared_ptr<Caller> one_ = std::make_shared<Caller>(connection_);
  const std::shared_ptr<Caller> other_ = std::make_shared<Caller>(connection_);
  WaitingFlows flows_;
};

TEST_F(WaitingFlowsTest, HoldsARequestWhileItHasAPlace) {
  std::shared_ptr<PendingRequest> request = Add(one_);
  flows_.AddPlace(request);
  EXPECT_EQ(flows_.CountOf(*connection_), 1);
  flows_.RemovePlace(*request);
  EXPECT_EQ(request.use_count(), 2);
  EXPECT_THAT(flows_.All(), ElementsAre(request));
  flows_.RemovePlace(*request);
  EXPECT_EQ(request.use_count(), 1);
  EXPECT_EQ(flows_.CountOf(*connection_), 0);
  EXPECT_EQ(flows_.FirstOf(*connection_), nullptr);
  EXPECT_THAT(flows_.All(), IsEmpty());
}

TEST_F(WaitingFlowsTest, KnowsThoseOfAFlowAndOfACaller) {
  const auto first = Add(one_);
  const auto second = Add(other_);
  const auto third = Add(one_);
  EXPECT_EQ(flows_.FirstOf(*connection_), first.get());
  EXPECT_THAT(flows_.Of(*one_), ElementsAre(first.get(), third.get()));
  EXPECT_THAT(flows_.Of(*other_), ElementsAre(second.get()));
  EXPECT_THAT(flows_.Of(Caller(connection_)), IsEmpty());
  flows_.RemovePlace(*first);
  EXPECT_EQ(flows_.FirstOf(*connection_), second.get());
  EXPECT_THAT(flows_.Of(*one_), ElementsAre(third.get()));
  EXPECT_THAT(flows_.All(), SizeIs(2));
}

TEST_F(WaitingFlowsTest, WhoRunsAgainIsBeforeThoseThatWait) {
  const auto waits = Add(one_);
  const auto died = Make(one_);
  died->started = true;
  flows_.AddPlace(died);
  EXPECT_EQ(flows_.FirstOf(*connection_), died.get());
}

TEST_F(WaitingFlowsTest, FindsWhoIsNextInTierAndAtTheDoor) {
  WaitingRoom room({1, 1});
  const auto queued = Add(one_);
  const auto low = Add(one_, 2);
  const auto at_door = Add(one_);
  room.Enter(*queued);
  room.Enter(*low);
  EXPECT_FALSE(flows_.LatestIsAtDoor(*connection_, 1));
  room.Park(*at_door);
  EXPECT_EQ(WaitingFlows::NextInTier(*queued), at_door.get());
  EXPECT_EQ(WaitingFlows::NextInTier(*low), nullptr);
  EXPECT_EQ(WaitingFlows::NextAtDoor(*queued), at_door.get());
  EXPECT_EQ(WaitingFlows::NextAtDoor(*at_door), nullptr);
  EXPECT_TRUE(flows_.LatestIsAtDoor(*connection_, 1));
  EXPECT_FALSE(flows_.LatestIsAtDoor(*connection_, 2));
  EXPECT_FALSE(flows_.LatestIsAtDoor(Flow(), 1));
}

}  // namespace
}  // namespace millrace
