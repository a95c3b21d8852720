// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/request_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/fakes/answer_book.h"
#include "tests/fakes/echo_model.h"

namespace millrace {
namespace {

using testing::ElementsAre;

class RequestQueueTest : public testing::Test {
 protected:
  std::shared_ptr<PendingRequest> Rows(int64_t rows) {
    return EchoPending(*signature_, std::vector<int32_t>(static_cast<size_t>(rows)), rows,
                       book_->Expect(), flow_);
  }

  // A request that counts how often it is told that it has left the door.
  std::shared_ptr<PendingRequest> Told(int64_t rows, int* told) {
    auto request = Rows(rows);
    request->on_unparked = [told] { ++*told; };
    return request;
  }

  const std::shared_ptr<const ModelSignature> signature_ = EchoSignature(8);
  const std::shared_ptr<AnswerBook> book_ = std::make_shared<AnswerBook>();
  const std::shared_ptr<Flow> flow_ = std::make_shared<Flow>();
  RequestQueue queue_{4};
};

TEST_F(RequestQueueTest, HoldsItsLimitOfRows) {
  EXPECT_TRUE(queue_.HasRoom(4));
  queue_.Push(Rows(3));
  EXPECT_TRUE(queue_.HasRoom(1));
  EXPECT_FALSE(queue_.HasRoom(2));
  queue_.Push(Rows(1));
  EXPECT_FALSE(queue_.HasRoom(1));
  EXPECT_EQ(queue_.rows(), 4);
}

TEST_F(RequestQueueTest, TakesAnySizeWhenEmpty) {
  EXPECT_TRUE(queue_.HasRoom(100));
  queue_.Push(Rows(100));
  EXPECT_FALSE(queue_.HasRoom(1));
}

TEST_F(RequestQueueTest, FirstLeavesWhenAllItsRowsAreClaimed) {
  const auto first = Rows(3);
  queue_.Push(first);
  queue_.Push(Rows(1));
  queue_.ClaimedFromFront(2);
  EXPECT_EQ(queue_.front(), first);
  EXPECT_EQ(first->rows_claimed, 2);
  EXPECT_EQ(queue_.rows(), 2);
  queue_.ClaimedFromFront(1);
  EXPECT_NE(queue_.front(), first);
  EXPECT_EQ(queue_.rows(), 1);
  queue_.ClaimedFromFront(1);
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.rows(), 0);
}

TEST_F(RequestQueueTest, LetsThoseAtTheDoorInInOrderAsFarAsThereIsRoom) {
  queue_.Push(Rows(4));
  int told[3] = {};
  queue_.Park(Told(2, &told[0]));
  queue_.Park(Told(3, &told[1]));
  queue_.Park(Told(1, &told[2]));
  EXPECT_EQ(queue_.parked(), 3);
  EXPECT_EQ(queue_.rows(), 4);
  EXPECT_TRUE(queue_.AdmitParked().empty());
  queue_.ClaimedFromFront(2);
  for (auto& tell : queue_.AdmitParked()) tell();
  EXPECT_THAT(told, ElementsAre(1, 0, 0));  // The third would fit, but the second is before it.
  queue_.ClaimedFromFront(2);
  queue_.ClaimedFromFront(2);
  for (auto& tell : queue_.AdmitParked()) tell();
  EXPECT_THAT(told, ElementsAre(1, 1, 1));
  EXPECT_EQ(queue_.rows(), 4);
  EXPECT_EQ(queue_.parked(), 0);
}

TEST_F(RequestQueueTest, RemovesFromTheQueueAndTheDoorAndCountsRowsThatWait) {
  const auto large = Rows(4);
  const auto parked = Rows(1);
  queue_.Push(large);
  queue_.ClaimedFromFront(1);
  queue_.Push(Rows(1));
  queue_.Park(parked);
  const auto removed = queue_.Remove([&](const PendingRequest& request) {
    return &request == large.get() || &request == parked.get();
  });
  EXPECT_THAT(removed.requests, ElementsAre(large, parked));
  EXPECT_EQ(queue_.rows(), 1);
  EXPECT_EQ(queue_.parked(), 0);
}

TEST_F(RequestQueueTest, RemovedFromTheDoorIsToldSoAndRemovedFromTheQueueIsNot) {
  int queued = 0;
  int parked = 0;
  queue_.Push(Told(1, &queued));
  queue_.Park(Told(1, &parked));
  auto removed = queue_.Remove([](const PendingRequest&) { return true; });
  EXPECT_EQ(removed.requests.size(), 2);
  for (auto& tell : removed.unparked) tell();
  EXPECT_EQ(queued, 0);
  EXPECT_EQ(parked, 1);
}

TEST_F(RequestQueueTest, OldestArrivalIsTheFirstInTheQueues) {
  EXPECT_EQ(queue_.oldest_arrival(), absl::InfiniteFuture());
  const auto first = Rows(1);
  first->arrival = absl::UnixEpoch() + absl::Seconds(1);
  const auto second = Rows(1);
  second->arrival = absl::UnixEpoch() + absl::Seconds(2);
  queue_.Push(first);
  queue_.Push(second);
  EXPECT_EQ(queue_.oldest_arrival(), first->arrival);
  queue_.ClaimedFromFront(1);
  EXPECT_EQ(queue_.oldest_arrival(), second->arrival);
}

}  // namespace
}  // namespace millrace
