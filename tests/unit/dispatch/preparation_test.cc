// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Requests whose rows are prepared before they join a batch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "server/base/timer_thread.h"
#include "server/dispatch/dispatcher.h"
#include "tests/fakes/echo_pool.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/seed.h"
#include "tests/unit/dispatch/answers_fixture.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Values = std::vector<int32_t>;
using Work = absl::AnyInvocable<void()>;

// Knows who has work.
class ToldPreparers final : public Preparers {
 public:
  void WorkWaits(std::shared_ptr<PreparationSource> source) override { source_ = source; }

  // The next piece of work, not run yet; empty where there is none.
  Work Next() { return source_ == nullptr ? Work() : source_->NextPreparation(); }

 private:
  std::shared_ptr<PreparationSource> source_;
};

// Rows of one value each that must be prepared, or can't be.
class PreparedFiller final : public Filler {
 public:
  PreparedFiller(Values values, std::vector<int>* order, absl::Status status)
      : values_(std::move(values)), prepared_(values_.size()), order_(order), status_(status) {}

  bool needs_preparation() const override { return true; }

  absl::Status Prepare(int64_t row) override {
    const auto index = static_cast<size_t>(row);
    EXPECT_FALSE(prepared_[index]) << "Row " << row << " is prepared twice.";
    prepared_[index] = true;
    order_->push_back(values_[index]);
    return status_;
  }

  absl::Status Fill(int64_t first_row, int64_t rows,
                    absl::Span<const absl::Span<std::byte>> areas) const override {
    for (int64_t row = first_row; row < first_row + rows; ++row) {
      EXPECT_TRUE(prepared_[static_cast<size_t>(row)]) << "Row " << row << " isn't prepared.";
    }
    std::memcpy(areas[0].data(), &values_[static_cast<size_t>(first_row)], areas[0].size());
    return absl::OkStatus();
  }

  uint64_t Fingerprint() const override { return static_cast<uint64_t>(values_.front()); }

  void Annotate(Parameters& parameters) const override {
    parameters.push_back({.name = "first", .value = int64_t{values_.front()}});
  }

 private:
  const Values values_;
  std::vector<bool> prepared_;
  std::vector<int>* const order_;
  const absl::Status status_;
};

class PreparationTest : public AnswersFixture {
 protected:
  EchoPool& Pool(int64_t max_batch_size = 4, int64_t ahead = 100, int64_t queue_rows = 100) {
    EchoPool::Options options;
    options.max_batch_size = max_batch_size;
    options.dispatch.preparers = &preparers_;
    options.dispatch.prepare_ahead = ahead;
    options.dispatch.max_queue_rows = queue_rows;
    return pools_.emplace_back(std::move(options), clock_, timer_, leases_);
  }

  struct Terms {
    absl::Status status = absl::OkStatus();
    absl::Duration patience = absl::InfiniteDuration();
    Overflow overflow = Overflow::kReject;
  };

  // Submits a request of a row per value; returns its place in book_.
  uint64_t Submit(EchoPool& pool, const Values& values, const std::shared_ptr<Caller>& caller,
                  const Terms& terms) {
    const auto rows = static_cast<int64_t>(values.size());
    auto checked = *pool.signature().Check(EchoRequest(pool.signature(), values, rows));
    checked.filler = std::make_unique<PreparedFiller>(values, &prepared_, terms.status);
    const uint64_t place = book_->expected();
    auto request = std::make_shared<PendingRequest>(std::move(checked), book_->Expect(), caller);
    request->arrival = clock_.Now();
    request->deadline = clock_.Now() + terms.patience;
    request->overflow = terms.overflow;
    pool.dispatcher().Submit(std::move(request));
    return place;
  }
  uint64_t Submit(EchoPool& pool, const Values& values, const std::shared_ptr<Caller>& caller) {
    return Submit(pool, values, caller, {});
  }
  uint64_t Submit(EchoPool& pool, const Values& values) { return Submit(pool, values, caller_); }

  static std::shared_ptr<Caller> NewCaller(int weight = 1) {
    return std::make_shared<Caller>(std::make_shared<Flow>(Flow::Options{.weight = weight}));
  }

  // Runs up to `most` pieces of work; returns how many there were.
  int PrepareUpTo(int most) {
    int done = 0;
    for (; done < most; ++done) {
      Work work = preparers_.Next();
      if (!work) break;
      work();
    }
    return done;
  }

  const std::shared_ptr<Caller> caller_ = NewCaller();
  ToldPreparers preparers_;
  std::vector<int> prepared_;  // Values, in their order.
  FakeClock clock_;
  TimerThread timer_{clock_};
  CoreLeases leases_{2};
  std::deque<EchoPool> pools_;
};

TEST_F(PreparationTest, RowsJoinABatchOnceTheyArePrepared) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t place = Submit(pool, {7});
  EXPECT_FALSE(runner.busy());
  Work work = preparers_.Next();
  EXPECT_FALSE(runner.busy()) << "It is only being prepared.";
  EXPECT_FALSE(preparers_.Next());
  work();
  ASSERT_TRUE(runner.busy());
  runner.Complete();
  EXPECT_THAT(OutputOf(place), ElementsAre(Echo(7)));
  const Response& response = *book_->Find(place);
  ASSERT_EQ(response.parameters.size(), 1U);
  EXPECT_EQ(std::get<int64_t>(response.parameters[0].value), 7);
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(PreparationTest, SlowRowHoldsUpNobodyOfOtherFlows) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t slow = Submit(pool, {1});
  const uint64_t quick = Submit(pool, {2}, NewCaller());
  Work first = preparers_.Next();
  PrepareUpTo(1);
  runner.Complete();
  EXPECT_TRUE(Owed(slow));
  EXPECT_THAT(OutputOf(quick), ElementsAre(Echo(2)));
  first();
  runner.Complete();
  EXPECT_THAT(OutputOf(slow), ElementsAre(Echo(1)));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(PreparationTest, FlowKeepsItsOrderWhateverIsPreparedFirst) {
  EchoPool& pool = Pool(/*max_batch_size=*/1);
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t places[] = {Submit(pool, {1}), Submit(pool, {2})};
  Work first = preparers_.Next();
  Work second = preparers_.Next();
  second();
  EXPECT_FALSE(runner.busy());
  first();
  runner.Complete();
  EXPECT_FALSE(Owed(places[0]));
  EXPECT_TRUE(Owed(places[1]));
  runner.Complete();
  EXPECT_FALSE(Owed(places[1]));
}

TEST_F(PreparationTest, RowsOfOneRequestArePreparedByOnesAndRunTogether) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t place = Submit(pool, {1, 2, 3});
  EXPECT_EQ(PrepareUpTo(2), 2);
  EXPECT_FALSE(runner.busy());
  EXPECT_EQ(PrepareUpTo(2), 1);
  EXPECT_THAT(runner.Inputs(), ElementsAre(1, 2, 3));
  runner.Complete();
  EXPECT_THAT(OutputOf(place), ElementsAre(Echo(1), Echo(2), Echo(3)));
}

TEST_F(PreparationTest, RowThatCantBePreparedFailsItsRequestAlone) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t bad = Submit(pool, {1}, caller_, {.status = absl::InvalidArgumentError("torn")});
  const uint64_t good = Submit(pool, {2});
  PrepareUpTo(2);
  EXPECT_EQ(CodeOf(bad), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(book_->Find(bad)->status.message()), HasSubstr("torn"));
  runner.Complete();
  EXPECT_THAT(OutputOf(good), ElementsAre(Echo(2)));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(PreparationTest, FlowsTakeTurnsByWeight) {
  EchoPool& pool = Pool();
  const auto heavy = NewCaller(/*weight=*/2);
  for (const int value : {1, 2, 3, 4}) Submit(pool, {value}, heavy);
  const auto light = NewCaller();
  for (const int value : {11, 12}) Submit(pool, {value}, light);
  PrepareUpTo(100);
  EXPECT_THAT(prepared_, ElementsAre(1, 2, 11, 3, 4, 12));
}

TEST_F(PreparationTest, NoMoreIsPreparedAheadThanIsSaidButForWhatHasBegun) {
  EchoPool& pool = Pool(/*max_batch_size=*/2, /*ahead=*/2);
  for (const int value : {1, 2, 3, 4, 5, 6}) Submit(pool, {value});
  EXPECT_EQ(PrepareUpTo(100), 4) << "Two are staged, and two wait behind them.";
  HandDrivenRunner& runner = pool.AddRunner();
  EXPECT_THAT(runner.Inputs(), ElementsAre(1, 2));
  EXPECT_EQ(PrepareUpTo(100), 2);
  Submit(pool, {7, 8, 9}, NewCaller());
  EXPECT_EQ(PrepareUpTo(100), 0);
  runner.Complete();
  EXPECT_EQ(PrepareUpTo(100), 3) << "A request that has begun is finished.";
}

TEST_F(PreparationTest, WhoIsCancelledOrExpiresWhileItIsPreparedIsAnsweredAtOnce) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const auto leaves = NewCaller();
  const uint64_t cancelled = Submit(pool, {1}, leaves);
  const uint64_t late = Submit(pool, {2}, NewCaller(), {.patience = absl::Seconds(1)});
  Work works[] = {preparers_.Next(), preparers_.Next()};
  leaves->Cancel();
  pool.dispatcher().Cancel(*leaves);
  EXPECT_EQ(CodeOf(cancelled), absl::StatusCode::kCancelled);
  clock_.Advance(absl::Seconds(2));
  clock_.WaitUntilBlocked(1);
  EXPECT_EQ(CodeOf(late), absl::StatusCode::kDeadlineExceeded);
  for (Work& work : works) work();
  EXPECT_FALSE(runner.busy());
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(PreparationTest, SupersededRequestIsNotPrepared) {
  EchoPool& pool = Pool();
  Submit(pool, {1}, caller_, {.overflow = Overflow::kLatest});
  Submit(pool, {2}, caller_, {.overflow = Overflow::kLatest});
  Submit(pool, {3}, caller_, {.overflow = Overflow::kLatest});
  PrepareUpTo(100);
  EXPECT_THAT(prepared_, ElementsAre(3));
}

TEST_F(PreparationTest, DispatcherThatStopsLeavesNoWork) {
  EchoPool& pool = Pool();
  const uint64_t place = Submit(pool, {1});
  Work work = preparers_.Next();
  const uint64_t other = Submit(pool, {2});
  pool.dispatcher().Stop(absl::UnavailableError("over"));
  EXPECT_EQ(CodeOf(place), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(other), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(preparers_.Next());
  work();
  EXPECT_THAT(prepared_, IsEmpty()) << "It had its answer.";
}

TEST_F(PreparationTest, WhoseReplicaDiesIsRunAgainWithoutPreparation) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t place = Submit(pool, {1});
  PrepareUpTo(1);
  runner.Die();
  HandDrivenRunner& next = pool.AddRunner();
  ASSERT_TRUE(next.busy());
  next.Complete();
  EXPECT_THAT(OutputOf(place), ElementsAre(Echo(1)));
  EXPECT_THAT(prepared_, ElementsAre(1));
}

// Whatever comes in whatever order, everyone is answered once, and rightly.
TEST_F(PreparationTest, RandomRequestsAreAllAnswered) {
  std::mt19937_64 random(TestSeed());
  const auto below = [&](int64_t end) {
    return std::uniform_int_distribution<int64_t>(0, end - 1)(random);
  };
  EchoPool& pool = Pool(/*max_batch_size=*/4, /*ahead=*/6, /*queue_rows=*/20);
  for (int i = 0; i < 2; ++i) pool.AddRunner();
  std::vector<std::shared_ptr<Caller>> callers;
  for (int i = 0; i < 4; ++i) callers.push_back(NewCaller(i + 1));
  std::vector<Work> running;
  std::vector<std::pair<uint64_t, Values>> asked;
  int32_t value = 0;
  constexpr Overflow kOverflows[] = {Overflow::kReject, Overflow::kDropOldest, Overflow::kLatest,
                                     Overflow::kBlock};
  for (int step = 0; step < 3000; ++step) {
    switch (below(4)) {
      case 0: {
        Values values;
        for (int64_t rows = 1 + below(3); rows > 0; --rows) values.push_back(++value);
        const auto who = static_cast<size_t>(below(4));
        const bool torn = below(10) == 0;
        asked.emplace_back(
            Submit(pool, values, callers[who],
                   {.status = torn ? absl::InvalidArgumentError("torn") : absl::OkStatus(),
                    .overflow = kOverflows[who]}),
            values);
        break;
      }
      case 1:
        if (Work work = preparers_.Next()) running.push_back(std::move(work));
        break;
      case 2:
        if (!running.empty()) {
          std::swap(running[static_cast<size_t>(below(static_cast<int64_t>(running.size())))],
                    running.back());
          running.back()();
          running.pop_back();
        }
        break;
      default:
        if (HandDrivenRunner& runner = pool.runners()[static_cast<size_t>(below(2))];
            runner.busy()) {
          runner.Complete();
        }
    }
  }
  for (bool more = true; more;) {
    more = !running.empty();
    for (Work& work : running) work();
    running.clear();
    more |= PrepareUpTo(1000) > 0;
    for (HandDrivenRunner& runner : pool.runners()) {
      more |= runner.busy();
      if (runner.busy()) runner.Complete();
    }
  }
  EXPECT_TRUE(pool.Quiet());
  int64_t ok = 0;
  for (const auto& [place, values] : asked) {
    ASSERT_FALSE(Owed(place)) << place;
    if (CodeOf(place) != absl::StatusCode::kOk) continue;
    ++ok;
    Values expected;
    for (const int32_t each : values) expected.push_back(Echo(each));
    EXPECT_EQ(OutputOf(place), expected);
  }
  EXPECT_GT(ok, 100);
}

}  // namespace
}  // namespace millrace
