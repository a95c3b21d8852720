// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "tests/fakes/answer_book.h"
#include "tests/fakes/echo_model.h"
#include "tests/fakes/seed.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

constexpr int64_t kCapacity = 8;

class BatchTest : public testing::Test {
 protected:
  BatchTest() {
    RowShape shape = {.dims = {{1}}, .row_bytes = {sizeof(int32_t)}};
    EXPECT_EQ(*buffer_.Open(shape, kCapacity), kCapacity);
    batch_ = std::make_unique<Batch>(&buffer_, std::make_shared<const RowShape>(shape), kCapacity);
  }

  // Claims rows for a request of `values`.
  size_t Claim(const std::vector<int32_t>& values, absl::Time arrival = absl::UnixEpoch()) {
    auto request = EchoPending(*signature_, values, static_cast<int64_t>(values.size()),
                               book_->Expect(), caller_);
    request->arrival = arrival;
    return batch_->Claim(std::move(request), 0, static_cast<int64_t>(values.size()));
  }

  // Writes a member's rows.
  void Fill(size_t index) {
    const Batch::Member member = batch_->members()[index];
    EXPECT_TRUE(
        batch_->Fill(*member.request, member.first_row, member.rows, member.batch_row).ok());
    batch_->Filled(index, absl::Milliseconds(1));
  }

  size_t Add(const std::vector<int32_t>& values, absl::Time arrival = absl::UnixEpoch()) {
    const size_t index = Claim(values, arrival);
    Fill(index);
    return index;
  }

  // The rows that a replica is to run.
  std::vector<int32_t> SealedRows() {
    batch_->Seal();
    return Int32s(buffer_.InputRows(0, 0, buffer_.sealed_rows));
  }

  const std::shared_ptr<const ModelSignature> signature_ = EchoSignature(kCapacity);
  const std::shared_ptr<AnswerBook> book_ = std::make_shared<AnswerBook>();
  const std::shared_ptr<Caller> caller_ = std::make_shared<Caller>(std::make_shared<Flow>());
  PlainBatchBuffer buffer_;
  std::unique_ptr<Batch> batch_;
};

TEST_F(BatchTest, PacksRowsInTheOrderOfTheirClaims) {
  Add({1});
  Add({2, 3});
  Add({4});
  EXPECT_EQ(batch_->rows(), 4);
  EXPECT_EQ(batch_->fill_time(), absl::Milliseconds(3));
  EXPECT_THAT(SealedRows(), ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(batch_->closed());
  EXPECT_EQ(buffer_.sealed_rows, 4);
}

TEST_F(BatchTest, FillsThePartOfARequestThatItHolds) {
  const auto request = EchoPending(*signature_, {1, 2, 3, 4, 5, 6}, 6, book_->Expect(), caller_);
  const size_t index = batch_->Claim(request, 2, 3);
  Fill(index);
  EXPECT_THAT(SealedRows(), ElementsAre(3, 4, 5));
}

TEST_F(BatchTest, IsClosedWhenFullAndOpenAgainWhenARowIsVacated) {
  const size_t first = Add({1, 2, 3, 4});
  Add({5, 6, 7, 8});
  EXPECT_TRUE(batch_->closed());
  EXPECT_FALSE(batch_->HasRoom(1));
  batch_->Vacate(first);
  EXPECT_FALSE(batch_->closed());
  EXPECT_TRUE(batch_->HasRoom(4));
}

TEST_F(BatchTest, NobodyJoinsOnceItIsClosed) {
  Add({1});
  batch_->Close();
  EXPECT_FALSE(batch_->HasRoom(1));
  EXPECT_TRUE(batch_->closed());
}

TEST_F(BatchTest, PieceOfALargeRequestIsAFullBatch) {
  EXPECT_EQ(batch_->PieceOf(3), 3);
  EXPECT_EQ(batch_->PieceOf(kCapacity), kCapacity);
  EXPECT_EQ(batch_->PieceOf(100), kCapacity);
}

TEST_F(BatchTest, SealMovesRowsIntoHoles) {
  const size_t first = Add({1, 2});
  Add({3});
  const size_t third = Add({4});
  Add({5, 6, 7});
  batch_->Vacate(first);
  batch_->Vacate(third);
  batch_->Vacate(third);
  EXPECT_EQ(batch_->rows(), 4);
  EXPECT_THAT(SealedRows(), ElementsAre(3, 5, 6, 7));
  ASSERT_EQ(batch_->members().size(), 2);
  EXPECT_EQ(batch_->members()[0].batch_row, 0);
  EXPECT_EQ(batch_->members()[1].batch_row, 1);
}

TEST_F(BatchTest, HoleIsRefilledByRequestsThatFitIn) {
  Add({1});
  const size_t hole = Add({2, 3});
  Add({4, 5, 6, 7, 8});
  batch_->Vacate(hole);
  EXPECT_FALSE(batch_->HasRoom(3));
  EXPECT_TRUE(batch_->HasRoom(2));
  Add({9});
  EXPECT_FALSE(batch_->HasRoom(2));
  Add({10});
  EXPECT_FALSE(batch_->HasRoom(1));
  EXPECT_THAT(SealedRows(), ElementsAre(1, 9, 10, 4, 5, 6, 7, 8));
}

TEST_F(BatchTest, RowVacatedWhileItIsWrittenIsReusedOnlyAfterwards) {
  Add({1, 2, 3, 4});
  const size_t writing = Claim({5, 6, 7, 8});
  EXPECT_EQ(batch_->filling(), 1);
  batch_->Vacate(writing);
  EXPECT_EQ(batch_->rows(), 4);
  EXPECT_FALSE(batch_->HasRoom(4));
  batch_->Filled(writing, absl::Milliseconds(1));
  EXPECT_EQ(batch_->filling(), 0);
  EXPECT_TRUE(batch_->HasRoom(4));
  EXPECT_THAT(SealedRows(), ElementsAre(1, 2, 3, 4));
}

TEST_F(BatchTest, OldestArrivalIsThatOfTheMembersWhoAreLeft) {
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(batch_->summary().oldest_arrival, absl::InfiniteFuture());
  const size_t oldest = Add({1}, now + absl::Seconds(1));
  Add({2}, now + absl::Seconds(3));
  const size_t second = Add({3}, now + absl::Seconds(2));
  EXPECT_EQ(batch_->summary().oldest_arrival, now + absl::Seconds(1));
  batch_->Vacate(oldest);
  EXPECT_EQ(batch_->summary().oldest_arrival, now + absl::Seconds(2));
  batch_->Vacate(second);
  EXPECT_EQ(batch_->summary().oldest_arrival, now + absl::Seconds(3));
}

TEST_F(BatchTest, WhoLeavesLeavesNothingBehind) {
  std::weak_ptr<PendingRequest> gone;
  for (int i = 0; i < 100; ++i) {
    const size_t member = Add({i});
    EXPECT_EQ(member, 0);
    gone = batch_->members()[member].request;
    batch_->Vacate(member);
    EXPECT_TRUE(gone.expired());
  }
  EXPECT_THAT(batch_->members(), testing::SizeIs(1));
}

TEST_F(BatchTest, ItsTierIsTheHighestOfThoseWhoAreLeft) {
  const size_t low = Claim({1});
  const size_t high = Claim({2});
  batch_->members()[low].request->tier = 4;
  batch_->Filled(low, absl::ZeroDuration());
  batch_->Filled(high, absl::ZeroDuration());
  EXPECT_EQ(batch_->summary().highest_tier, 0);
  batch_->Vacate(high);
  EXPECT_EQ(batch_->summary().highest_tier, 4);
}

// Against the plainest model of a batch: the values of the members who are left.
TEST_F(BatchTest, KeepsTheRowsOfThoseWhoAreLeftWhateverComesAndGoes) {
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 300; ++round) {
    RowShape shape = {.dims = {{1}}, .row_bytes = {sizeof(int32_t)}};
    ASSERT_TRUE(buffer_.Open(shape, kCapacity).ok());
    batch_ = std::make_unique<Batch>(&buffer_, std::make_shared<const RowShape>(shape), kCapacity);
    std::vector<std::vector<int32_t>> left;  // By member; empty once vacated.
    int32_t next = 0;
    for (int step = 0; step < 20; ++step) {
      const auto rows = static_cast<int64_t>(1 + random() % 3);
      if (random() % 3 != 0 && batch_->HasRoom(rows)) {
        std::vector<int32_t> values;
        for (int64_t i = 0; i < rows; ++i) values.push_back(next++);
        const size_t member = Add(values);
        left.resize(std::max(left.size(), member + 1));
        EXPECT_TRUE(left[member].empty());
        left[member] = std::move(values);
      } else if (!left.empty()) {
        const size_t member = random() % left.size();
        batch_->Vacate(member);
        left[member].clear();
      }
    }
    batch_->Seal();
    std::vector<int32_t> expected(static_cast<size_t>(batch_->rows()));
    size_t rows = 0;
    for (const auto& values : left) rows += values.size();
    ASSERT_EQ(expected.size(), rows);
    for (const Batch::Member& member : batch_->members()) {
      std::vector<int32_t> own(static_cast<size_t>(member.rows));
      ASSERT_TRUE(member.request->filler()
                      .Fill(member.first_row, member.rows,
                            {absl::Span<std::byte>(reinterpret_cast<std::byte*>(own.data()),
                                                   own.size() * sizeof(int32_t))})
                      .ok());
      std::copy(own.begin(), own.end(), expected.begin() + member.batch_row);
      std::erase(left, own);
    }
    EXPECT_THAT(Int32s(buffer_.InputRows(0, 0, buffer_.sealed_rows)), ElementsAreArray(expected));
    for (const auto& values : left) ASSERT_TRUE(values.empty());  // Nobody was forgotten.
  }
}

}  // namespace
}  // namespace millrace
