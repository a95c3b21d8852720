// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/base/timer_thread.h"
#include "server/metrics/metric_names.h"
#include "tests/fakes/echo_pool.h"
#include "tests/fakes/fake_clock.h"
#include "tests/unit/dispatch/answers_fixture.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::SizeIs;
using Values = std::vector<int32_t>;

class CountingClock final : public FakeClock {
 public:
  absl::Time Now() const override {
    ++asked;
    return FakeClock::Now();
  }
  mutable std::atomic<int> asked = 0;
};

// Fills a row by calling into the test first.
class HookedFiller final : public Filler {
 public:
  HookedFiller(std::function<absl::Status()> hook, int32_t value)
      : hook_(std::move(hook)), value_(value) {}

  absl::Status Fill(int64_t /*first_row*/, int64_t /*rows*/,
                    absl::Span<const absl::Span<std::byte>> areas) const override {
    if (const absl::Status status = hook_(); !status.ok()) return status;
    std::memcpy(areas[0].data(), &value_, sizeof(value_));
    return absl::OkStatus();
  }
  uint64_t Fingerprint() const override { return static_cast<uint64_t>(value_); }

 private:
  const std::function<absl::Status()> hook_;
  const int32_t value_;
};

class DispatcherTest : public AnswersFixture {
 protected:
  EchoPool& Pool(EchoPool::Options options = {}) {
    return pools_.emplace_back(std::move(options), clock_, timer_, leases_);
  }

  // Submits a request of `rows` rows that make up `values`; returns its place in book_.
  uint64_t Submit(EchoPool& pool, const Values& values, int64_t rows = 1,
                  Overflow overflow = Overflow::kReject,
                  absl::Time deadline = absl::InfiniteFuture()) {
    auto request = pool.Pending(values, rows, book_->Expect(), caller_);
    request->deadline = deadline;
    request->overflow = overflow;
    pool.dispatcher().Submit(std::move(request));
    return book_->expected() - 1;
  }

  // A caller whose flow counts the moves of its requests to a door and away from it.
  struct Visitor {
    std::atomic<int> came{0}, left{0};
    std::shared_ptr<Caller> caller = std::make_shared<Caller>(std::make_shared<Flow>(
        Flow::Options{.on_parked = [this](int change) { change > 0 ? ++came : ++left; }}));
  };

  // Submits a request that waits at the door where the queue is full.
  void SubmitOrPark(EchoPool& pool, const Values& values, const Visitor& visitor) {
    auto request = pool.Pending(values, 1, book_->Expect(), visitor.caller);
    request->overflow = Overflow::kBlock;
    pool.dispatcher().Submit(std::move(request));
  }

  // Submits a one-row request of one value whose filler calls `hook` first.
  uint64_t SubmitHooked(EchoPool& pool, int32_t value, std::function<absl::Status()> hook,
                        std::shared_ptr<const Caller> caller) {
    auto checked = *pool.signature().Check(EchoRequest(pool.signature(), {value}));
    checked.filler = std::make_unique<HookedFiller>(std::move(hook), value);
    const uint64_t place = book_->expected();
    auto request =
        std::make_shared<PendingRequest>(std::move(checked), book_->Expect(), std::move(caller));
    request->arrival = clock_.Now();
    pool.dispatcher().Submit(std::move(request));
    return place;
  }

  void Cancel(EchoPool& pool, Caller& caller) {
    caller.Cancel();
    pool.dispatcher().Cancel(caller);
  }

  // Moves the time on and lets the timer run what is due.
  void Advance(absl::Duration duration) {
    clock_.Advance(duration);
    clock_.WaitUntilBlocked(1);
  }

  const std::shared_ptr<Caller> caller_ = std::make_shared<Caller>(std::make_shared<Flow>());
  CountingClock clock_;
  TimerThread timer_{clock_};
  CoreLeases leases_{2};
  std::deque<EchoPool> pools_;
};

// ---- Batches ----

TEST_F(DispatcherTest, AnswersEachRequestWithItsOwnRows) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t first = Submit(pool, {1, 2});
  ASSERT_TRUE(runner.busy());
  const uint64_t second = Submit(pool, {3, 4});
  const uint64_t third = Submit(pool, {5, 6, 7, 8}, 2);
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), ElementsAre(3, 4, 5, 6, 7, 8));
  runner.Complete();
  EXPECT_THAT(OutputOf(first), ElementsAre(3, 5));
  EXPECT_THAT(OutputOf(second), ElementsAre(7, 9));
  EXPECT_THAT(OutputOf(third), ElementsAre(11, 13, 15, 17));
  EXPECT_THAT(book_->Find(third)->outputs[0].shape, ElementsAre(2, 2));
  EXPECT_EQ(book_->Find(third)->timings.batch_rows, 3);
  EXPECT_EQ(book_->Find(third)->model_name, "echo");
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RepliesPointIntoTheirOwnMemory) {
  EchoPool& pool = Pool({.buffers = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t first = Submit(pool, {1});
  runner.Complete();
  Submit(pool, {100});  // Opens the only buffer again.
  EXPECT_THAT(OutputOf(first), ElementsAre(3));
  const Response& response = *book_->Find(first);
  EXPECT_EQ(response.outputs[0].data.data(), response.memory.get());
  EXPECT_EQ(response.memory_size, sizeof(int32_t));
  runner.Complete();
}

TEST_F(DispatcherTest, ReplicaThatFreesFirstTakesTheStagedBatch) {
  EchoPool& pool = Pool();
  HandDrivenRunner& slow = pool.AddRunner();
  Submit(pool, {1});
  HandDrivenRunner& quick = pool.AddRunner();
  Submit(pool, {2});
  Submit(pool, {3});
  EXPECT_THAT(quick.Inputs(), ElementsAre(2));
  quick.Complete();
  EXPECT_THAT(quick.Inputs(), ElementsAre(3));
  EXPECT_THAT(slow.Inputs(), ElementsAre(1));
  quick.Complete();
  slow.Complete();
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, AtMostOneBatchPerRowShapeIsStaged) {
  EchoPool& pool = Pool({.max_batch_size = 2, .buffers = 4});
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {0});
  ASSERT_TRUE(runner.busy());
  for (int i = 1; i <= 5; ++i) Submit(pool, {i});
  EXPECT_EQ(pool.dispatcher().gauges().free_buffers, 2);  // One runs, one is staged.
  EXPECT_EQ(pool.dispatcher().gauges().queued_rows, 3);
  for (const Values& expected : {Values{1, 2}, Values{3, 4}, Values{5}}) {
    runner.Complete();
    EXPECT_THAT(runner.Inputs(), ElementsAreArray(expected));
  }
  runner.Complete();
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RowShapesAreBatchedApartAndServedInTheOrderOfArrival) {
  EchoPool& pool = Pool({.buffers = 3});
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {0});
  const uint64_t wide = Submit(pool, {1, 2});
  clock_.Advance(absl::Milliseconds(1));
  Submit(pool, {3});
  Submit(pool, {4, 5});
  Submit(pool, {6, 7, 8});  // Has to wait: the buffers are taken.
  EXPECT_EQ(pool.dispatcher().gauges().queued_rows, 1);
  std::vector<Values> ran;
  while (runner.busy()) {
    ran.push_back(runner.Inputs());
    runner.Complete();
  }
  EXPECT_THAT(ran, ElementsAre(Values{0}, Values{1, 2, 4, 5}, Values{3}, Values{6, 7, 8}));
  EXPECT_THAT(OutputOf(wide), ElementsAre(3, 5));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, SmallRequestDoesNotOvertakeOneThatDoesNotFit) {
  EchoPool& pool = Pool({.max_batch_size = 4});
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {0});
  Submit(pool, {1, 2, 3}, 3);
  Submit(pool, {4, 5}, 2);
  Submit(pool, {6});
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), ElementsAre(1, 2, 3));
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), ElementsAre(4, 5, 6));
  runner.Complete();
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RequestLargerThanABatchIsSplitAndItsAnswerJoined) {
  EchoPool& pool = Pool({.max_batch_size = 4});
  HandDrivenRunner& runner = pool.AddRunner();
  HandDrivenRunner& other = pool.AddRunner();
  Values values;
  for (int i = 0; i < 20; ++i) values.push_back(i);
  const uint64_t place = Submit(pool, values, 10);
  ASSERT_TRUE(runner.busy() && other.busy());
  runner.Complete();  // Out of order.
  EXPECT_TRUE(Owed(place));
  while (other.busy()) other.Complete();
  while (runner.busy()) runner.Complete();
  EXPECT_EQ(OutputOf(place), Echoes(values));
  EXPECT_THAT(book_->Find(place)->outputs[0].shape, ElementsAre(10, 2));
  EXPECT_EQ(runner.runs() + other.runs(), 3);
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RowsRunOneByOneWhereTheyAreLimitedToOne) {
  EchoPool& pool = Pool({.max_batch_size = 4});
  pool.dispatcher().LimitRows(1);
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t place = Submit(pool, {1, 2, 3}, 3);
  while (runner.busy()) {
    EXPECT_EQ(runner.Inputs().size(), 1u);
    runner.Complete();
  }
  EXPECT_EQ(runner.runs(), 3);
  EXPECT_EQ(OutputOf(place), Echoes({1, 2, 3}));
}

TEST_F(DispatcherTest, WithoutABatchDimensionEveryRequestRunsAlone) {
  EchoPool& pool = Pool({.max_batch_size = 0});
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t first = Submit(pool, {1, 2, 3});
  const uint64_t second = Submit(pool, {4, 5, 6});
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), ElementsAre(4, 5, 6));
  runner.Complete();
  EXPECT_THAT(OutputOf(first), ElementsAre(3, 5, 7));
  EXPECT_THAT(OutputOf(second), ElementsAre(9, 11, 13));
  EXPECT_THAT(book_->Find(second)->outputs[0].shape, ElementsAre(3));
}

TEST_F(DispatcherTest, RowThatNoBufferHoldsIsRefusedAndTheNextServed) {
  EchoPool& pool = Pool({.most_row_bytes = 8});
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t large = Submit(pool, {1, 2, 3});
  const uint64_t small = Submit(pool, {1});
  EXPECT_EQ(CodeOf(large), absl::StatusCode::kResourceExhausted);
  runner.Complete();
  EXPECT_THAT(OutputOf(small), ElementsAre(3));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, FillErrorAnswersItsRequestAndNoOther) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {0});
  const uint64_t before = Submit(pool, {1});
  const uint64_t broken = SubmitHooked(
      pool, 2, [] { return absl::InvalidArgumentError("not a picture"); }, caller_);
  const uint64_t after = Submit(pool, {3});
  EXPECT_EQ(CodeOf(broken), absl::StatusCode::kInvalidArgument);
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), ElementsAre(1, 3));
  runner.Complete();
  EXPECT_THAT(OutputOf(before), ElementsAre(3));
  EXPECT_THAT(OutputOf(after), ElementsAre(7));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RestOfARequestThatHasFailedIsNotRun) {
  EchoPool& pool = Pool({.max_batch_size = 2});
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t large = Submit(pool, {kCulprit, 1, 2, 3, 4, 5, 6, 7}, 8);
  const uint64_t next = Submit(pool, {8});
  while (runner.busy()) runner.Complete();
  EXPECT_EQ(CodeOf(large), absl::StatusCode::kInternal);
  EXPECT_THAT(OutputOf(next), ElementsAre(17));
  EXPECT_LE(runner.runs(), 3);  // The culprit's, the one that was staged already, the next.
  EXPECT_TRUE(pool.Quiet());
}

// ---- The buffers ----

TEST_F(DispatcherTest, BufferIsFreeAndTheNextBatchRunsBeforeAnyAnswerIsSent) {
  EchoPool& pool = Pool({.max_batch_size = 1, .buffers = 2});
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {1});
  Submit(pool, {2});
  size_t free_buffers = 0;
  Values running;
  book_->on_deliver = [&](uint64_t place) {
    if (place != 0) return;
    free_buffers = pool.dispatcher().gauges().free_buffers;
    running = runner.Inputs();
  };
  runner.Complete();
  EXPECT_EQ(free_buffers, 1);
  EXPECT_THAT(running, ElementsAre(2));
  runner.Complete();
}

// ---- The queue ----

TEST_F(DispatcherTest, FullQueueRejects) {
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 2}, .max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  for (int i = 0; i < 4; ++i) Submit(pool, {i});  // Runs, staged, queued, queued.
  const uint64_t rejected = Submit(pool, {4});
  EXPECT_EQ(CodeOf(rejected), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(rejected),
              HasSubstr("2 rows wait for model 'echo', at most 2 may; retry later"));
  runner.Complete();
  const uint64_t admitted = Submit(pool, {5});
  while (runner.busy()) runner.Complete();
  EXPECT_THAT(OutputOf(admitted), ElementsAre(11));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RequestLargerThanTheQueueEntersAnEmptyOne) {
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 2}, .max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t large = Submit(pool, {1, 2, 3, 4, 5}, 5);
  EXPECT_EQ(CodeOf(Submit(pool, {6})), absl::StatusCode::kResourceExhausted);
  while (runner.busy()) runner.Complete();
  EXPECT_THAT(OutputOf(large), ElementsAre(3, 5, 7, 9, 11));
}

TEST_F(DispatcherTest, ParkedRequestsAreLetInInOrderAndTheirStreamsTold) {
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 1}, .max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  for (int i = 0; i < 3; ++i) Submit(pool, {i});  // Runs, staged, queued.
  Visitor first;
  Visitor second;
  SubmitOrPark(pool, {3}, first);
  SubmitOrPark(pool, {4}, second);
  EXPECT_EQ(pool.dispatcher().gauges().in_flight, 5);
  // A unary call doesn't slip past those at the door.
  EXPECT_EQ(CodeOf(Submit(pool, {5})), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(first.left, 0);
  runner.Complete();
  EXPECT_EQ(first.left, 1);
  EXPECT_EQ(second.left, 0);
  runner.Complete();
  EXPECT_EQ(second.left, 1);
  std::vector<Values> ran;
  while (runner.busy()) {
    ran.push_back(runner.Inputs());
    runner.Complete();
  }
  EXPECT_THAT(ran, ElementsAre(Values{2}, Values{3}, Values{4}));
  EXPECT_EQ(first.left, 1);
  EXPECT_EQ(second.left, 1);
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, QueueThatIsMadeLongerLetsInThoseAtTheDoor) {
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 1}, .max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  for (int i = 0; i < 3; ++i) Submit(pool, {i});  // Runs, staged, queued.
  Visitor visitor;
  SubmitOrPark(pool, {3}, visitor);
  EXPECT_EQ(pool.dispatcher().gauges().queue_limit, 1);
  pool.dispatcher().SizeQueue(3, 1);
  EXPECT_EQ(visitor.left, 1);
  EXPECT_EQ(pool.dispatcher().gauges().queue_limit, 3);
  const uint64_t third = Submit(pool, {4});
  EXPECT_EQ(CodeOf(Submit(pool, {5})), absl::StatusCode::kResourceExhausted);
  pool.dispatcher().SizeQueue(1, 1);  // Who is in stays.
  while (runner.busy()) runner.Complete();
  EXPECT_THAT(OutputOf(third), ElementsAre(9));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, UnparkingIsToldToThoseWhoWereParkedAndNoOthers) {
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 1}, .max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {0});
  Submit(pool, {1});
  Visitor visitor;
  SubmitOrPark(pool, {2}, visitor);
  EXPECT_EQ(visitor.came, 0);
  SubmitOrPark(pool, {3}, visitor);
  EXPECT_EQ(visitor.came, 1);
  Cancel(pool, *visitor.caller);
  EXPECT_EQ(visitor.left, 1);
  while (runner.busy()) runner.Complete();
  EXPECT_TRUE(pool.Quiet());
}

// ---- Cancelling ----

TEST_F(DispatcherTest, CancelDropsWhatWaitsAndLeavesWhatRuns) {
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 1}, .max_batch_size = 2});
  HandDrivenRunner& runner = pool.AddRunner();
  Visitor gone;
  SubmitOrPark(pool, {0}, gone);  // Runs.
  Submit(pool, {1});              // Staged.
  SubmitOrPark(pool, {2}, gone);  // Staged.
  SubmitOrPark(pool, {3}, gone);  // Queued.
  SubmitOrPark(pool, {4}, gone);  // Parked.
  const uint64_t last = Submit(pool, {5}, 1, Overflow::kBlock);
  Cancel(pool, *gone.caller);
  for (const uint64_t place : {2, 3, 4}) EXPECT_EQ(CodeOf(place), absl::StatusCode::kCancelled);
  EXPECT_EQ(gone.left, 1);
  runner.Complete();
  EXPECT_THAT(OutputOf(0), ElementsAre(1));
  EXPECT_THAT(runner.Inputs(), ElementsAre(1, 5));  // The row of the cancelled was refilled.
  runner.Complete();
  EXPECT_THAT(OutputOf(last), ElementsAre(11));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RequestOfACancelledFlowIsNotTaken) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  caller_->Cancel();
  EXPECT_EQ(CodeOf(Submit(pool, {1})), absl::StatusCode::kCancelled);
  EXPECT_FALSE(runner.busy());
}

TEST_F(DispatcherTest, CancelledRowsAreHolesThatNeverRun) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {0});
  Visitor gone;
  Submit(pool, {1});
  SubmitOrPark(pool, {2}, gone);
  const uint64_t large = Submit(pool, {3, 4, 5}, 3);
  Cancel(pool, *gone.caller);
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), ElementsAre(1, 3, 4, 5));
  runner.Complete();
  EXPECT_THAT(OutputOf(large), ElementsAre(7, 9, 11));
}

TEST_F(DispatcherTest, CancelOfAWholeStagedBatchLetsTheQueueInAtOnce) {
  EchoPool& pool = Pool({.max_batch_size = 2});
  ASSERT_TRUE(leases_.TryAcquire(nullptr, 2));  // All are taken.
  HandDrivenRunner& runner = pool.AddRunner(1);
  Visitor gone;
  SubmitOrPark(pool, {1}, gone);                  // Staged; waits for a core.
  const uint64_t next = Submit(pool, {2, 3}, 2);  // Doesn't fit in and waits behind it.
  Cancel(pool, *gone.caller);
  leases_.Release(2);
  ASSERT_TRUE(runner.busy());
  runner.Complete();
  EXPECT_THAT(OutputOf(next), ElementsAre(5, 7));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, CancelWhileARowIsWrittenLetsTheQueueIn) {
  EchoPool& pool = Pool({.max_batch_size = 2});
  HandDrivenRunner& runner = pool.AddRunner();
  const auto gone = std::make_shared<Caller>(std::make_shared<Flow>());
  uint64_t next = 0;
  const uint64_t cancelled = SubmitHooked(
      pool, 1,
      [&] {
        next = Submit(pool, {2, 3}, 2);  // As another thread would.
        Cancel(pool, *gone);
        return absl::OkStatus();
      },
      gone);
  EXPECT_EQ(CodeOf(cancelled), absl::StatusCode::kCancelled);
  ASSERT_TRUE(runner.busy());
  runner.Complete();
  EXPECT_THAT(OutputOf(next), ElementsAre(5, 7));
  EXPECT_TRUE(pool.Quiet());
}

// ---- Time ----

TEST_F(DispatcherTest, DeadlinePassesWhileAllReplicasAreBusy) {
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 1}, .max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  const absl::Time deadline = clock_.Now() + absl::Seconds(1);
  const uint64_t runs = Submit(pool, {0}, 1, Overflow::kBlock, deadline);
  const uint64_t staged = Submit(pool, {1}, 1, Overflow::kBlock, deadline);
  const uint64_t queued = Submit(pool, {2}, 1, Overflow::kBlock, deadline);
  const uint64_t parked = Submit(pool, {3}, 1, Overflow::kBlock, deadline);
  const uint64_t later = Submit(pool, {4}, 1, Overflow::kBlock, deadline + absl::Nanoseconds(1));
  Advance(absl::Seconds(1) - absl::Nanoseconds(1));
  EXPECT_TRUE(book_->order().empty());
  Advance(absl::Nanoseconds(1));
  for (const uint64_t place : {staged, queued, parked}) {
    EXPECT_EQ(CodeOf(place), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_TRUE(Owed(runs));
  EXPECT_TRUE(Owed(later));
  Advance(absl::Nanoseconds(1));
  EXPECT_EQ(CodeOf(later), absl::StatusCode::kDeadlineExceeded);
  runner.Complete();
  EXPECT_THAT(OutputOf(runs), ElementsAre(1));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RequestThatArrivesTooLateIsNotRun) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t late = Submit(pool, {0}, 1, Overflow::kReject, clock_.Now());
  EXPECT_EQ(CodeOf(late), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(runner.busy());
}

TEST_F(DispatcherTest, DeadlineOfARequestWhoseReplicaDiedStillPasses) {
  EchoPool& pool = Pool({.max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  const absl::Time now = clock_.Now();
  const uint64_t long_wait = Submit(pool, {0}, 1, Overflow::kReject, now + absl::Seconds(10));
  const uint64_t short_wait = Submit(pool, {1}, 1, Overflow::kReject, now + absl::Seconds(3));
  Advance(absl::Seconds(3));
  EXPECT_EQ(CodeOf(short_wait), absl::StatusCode::kDeadlineExceeded);
  runner.Die();
  Advance(absl::Seconds(7));
  EXPECT_EQ(CodeOf(long_wait), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(DispatcherTest, BatchWaitsForMaxQueueDelayToGrow) {
  EchoPool& pool = Pool({.dispatch = {.policy = {.max_queue_delay = absl::Milliseconds(5)}}});
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {1});
  Advance(absl::Milliseconds(4));
  Submit(pool, {2});
  EXPECT_FALSE(runner.busy());
  Advance(absl::Milliseconds(1));
  ASSERT_TRUE(runner.busy());
  EXPECT_THAT(runner.Inputs(), ElementsAre(1, 2));
  runner.Complete();
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, CancelledRequestDoesNotShortenTheDelayOfTheOthers) {
  EchoPool& pool = Pool({.dispatch = {.policy = {.max_queue_delay = absl::Milliseconds(5)}}});
  HandDrivenRunner& runner = pool.AddRunner();
  Visitor gone;
  SubmitOrPark(pool, {1}, gone);
  Advance(absl::Milliseconds(4));
  Submit(pool, {2});
  Cancel(pool, *gone.caller);
  Advance(absl::Milliseconds(1));
  EXPECT_FALSE(runner.busy());
  Advance(absl::Milliseconds(4));
  EXPECT_TRUE(runner.busy());
  runner.Complete();
}

TEST_F(DispatcherTest, PreferredSizeAndFullBatchGoAtOnce) {
  EchoPool& pool = Pool(
      {.dispatch = {.policy = {.preferred_sizes = {2}, .max_queue_delay = absl::Milliseconds(5)}},
       .max_batch_size = 3});
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {1});
  EXPECT_FALSE(runner.busy());
  Submit(pool, {2});
  EXPECT_THAT(runner.Inputs(), ElementsAre(1, 2));
  Submit(pool, {3, 4, 5}, 3);
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), ElementsAre(3, 4, 5));
  runner.Complete();
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, BatchWaitingForItsDelayLetsAnotherShapeGoFirstWhenThatIsFull) {
  EchoPool& pool = Pool(
      {.dispatch = {.policy = {.max_queue_delay = absl::Milliseconds(5)}}, .max_batch_size = 2});
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {1});
  Submit(pool, {2, 3, 4, 5}, 2);
  EXPECT_THAT(runner.Inputs(), ElementsAre(2, 3, 4, 5));
  runner.Complete();
  EXPECT_FALSE(runner.busy());
  Advance(absl::Milliseconds(5));
  EXPECT_THAT(runner.Inputs(), ElementsAre(1));
  runner.Complete();
}

TEST_F(DispatcherTest, AtMostOneWakeUpIsOutstanding) {
  EchoPool& pool = Pool({.max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  constexpr int kRequests = 1000;
  const absl::Time last = clock_.Now() + absl::Hours(1);
  for (int i = 0; i < kRequests; ++i) {
    Submit(pool, {i}, 1, Overflow::kReject, last - absl::Milliseconds(i));
    runner.Complete();
  }
  clock_.asked = 0;
  Advance(absl::Hours(2));
  EXPECT_LT(clock_.asked, 100);
}

// ---- What goes wrong in replicas ----

TEST_F(DispatcherTest, ModelErrorIsTheCulpritsAloneAndItsNeighboursAreAnswered) {
  for (int culprit = 0; culprit < 7; ++culprit) {
    EchoPool& pool = Pool();
    HandDrivenRunner& runner = pool.AddRunner();
    Submit(pool, {100});
    std::vector<uint64_t> places;
    for (int i = 0; i < 7; ++i) places.push_back(Submit(pool, {i == culprit ? kCulprit : i}));
    while (runner.busy()) runner.Complete();
    for (int i = 0; i < 7; ++i) {
      if (i == culprit) {
        EXPECT_EQ(CodeOf(places[i]), absl::StatusCode::kInternal);
        EXPECT_THAT(MessageOf(places[i]), HasSubstr("the model raised an exception"));
      } else {
        EXPECT_THAT(OutputOf(places[i]), ElementsAre(Echo(i)));
      }
    }
    EXPECT_LE(runner.runs(), 2 + 2 * 3);  // Halves of 7: three times two more batches at most.
    EXPECT_TRUE(pool.Quiet());
  }
}

// A request of value 0 goes first and occupies the replica while the others are gathered.
TEST_F(DispatcherTest, FlowWhoseRequestFailedAloneIsBatchedApartUntilOneSucceeds) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const auto other = std::make_shared<Caller>(std::make_shared<Flow>());
  const auto submit = [&](int32_t value, const std::shared_ptr<Caller>& caller) {
    pool.dispatcher().Submit(pool.Pending({value}, 1, book_->Expect(), caller));
  };
  const auto batches_of = [&](std::vector<int32_t> values) {
    submit(0, other);
    for (const int32_t value : values) submit(value, value < 10 ? caller_ : other);
    std::vector<Values> batches;
    for (runner.Complete(); runner.busy(); runner.Complete()) batches.push_back(runner.Inputs());
    return batches;
  };
  submit(kCulprit, caller_);
  runner.Complete();
  // The flow's are alone; the first of them that succeeds brings it back.
  EXPECT_THAT(batches_of({11, 1, 2, 3, 12}),
              ElementsAre(Values{11}, Values{1}, Values{12}, Values{2, 3}));
  EXPECT_THAT(batches_of({13, 4}), ElementsAre(Values{13, 4}));
  submit(kCulprit, caller_);
  runner.Complete();
  clock_.Advance(FailingFlows::kApart);
  EXPECT_THAT(batches_of({14, 5}), ElementsAre(Values{14, 5}));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, OutputsThatBreakTheSignatureAreAnErrorThatNamesBoth) {
  const auto data = std::make_unique<int32_t[]>(4);
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data.get()), 4);
  const struct {
    std::vector<OutputView> outputs;
    std::string message;
  } cases[] = {
      {{}, "returned 0 outputs, expected 1"},
      {{{DataType::kFp32, {1, 1}, bytes}}, "is FP32 of shape [1,1], expected INT32 with 1 rows"},
      {{{DataType::kInt32, {2, 1}, bytes}}, "is INT32 of shape [2,1], expected INT32 with 1 rows"},
      {{{DataType::kInt32, {}, bytes}}, "is INT32 of shape [], expected INT32 with 1 rows"},
  };
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  for (const auto& [outputs, message] : cases) {
    const uint64_t place = Submit(pool, {1});
    runner.CompleteWith(outputs);
    EXPECT_EQ(CodeOf(place), absl::StatusCode::kInternal);
    EXPECT_THAT(MessageOf(place), HasSubstr(message));
  }
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, BatchWhoseReplicaDiedRunsAgainFilledAfresh) {
  EchoPool& pool = Pool();
  HandDrivenRunner& dying = pool.AddRunner();
  Submit(pool, {0});
  const uint64_t first = Submit(pool, {1});
  const uint64_t second = Submit(pool, {2, 3}, 2);
  dying.Complete();
  ASSERT_THAT(dying.Inputs(), ElementsAre(1, 2, 3));
  const uint64_t later = Submit(pool, {4});
  dying.Die();
  EXPECT_FALSE(dying.busy());
  pool.dispatcher().AddRunner(&dying);          // Its next process.
  EXPECT_THAT(dying.Inputs(), ElementsAre(1));  // In halves: whoever killed it does so again.
  dying.Complete();
  EXPECT_THAT(OutputOf(first), ElementsAre(3));
  EXPECT_THAT(dying.Inputs(), ElementsAre(2, 3));
  dying.Complete();
  EXPECT_THAT(OutputOf(second), ElementsAre(5, 7));
  EXPECT_THAT(dying.Inputs(), ElementsAre(4));
  dying.Complete();
  EXPECT_THAT(OutputOf(later), ElementsAre(9));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, AnotherReplicaTakesTheBatchOfADeadOneAtOnce) {
  EchoPool& pool = Pool();
  HandDrivenRunner& idle = pool.AddRunner();
  HandDrivenRunner& dying = pool.AddRunner();
  const uint64_t place = Submit(pool, {1});
  ASSERT_TRUE(dying.busy());
  dying.Die();
  EXPECT_THAT(idle.Inputs(), ElementsAre(1));
  idle.Complete();
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
}

TEST_F(DispatcherTest, RequestUnderWhichThreeReplicasDiedIsGivenUp) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t place = Submit(pool, {1});
  for (int death = 1; death <= 3; ++death) {
    ASSERT_TRUE(runner.busy());
    EXPECT_TRUE(Owed(place));
    runner.Die();
    pool.dispatcher().AddRunner(&runner);
  }
  EXPECT_EQ(CodeOf(place), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(place), HasSubstr("3 replicas died"));
  EXPECT_THAT(MessageOf(place), HasSubstr("the last was killed by the test"));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, PayloadThatKilledReplicasIsRunAloneFromThenOnAndTriedOnce) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {kCulprit});
  for (int death = 1; death <= 3; ++death) {
    runner.Die();
    pool.dispatcher().AddRunner(&runner);
  }
  Submit(pool, {0});
  std::vector<uint64_t> places;
  for (const int32_t value : {1, 2, kCulprit, 3, 4}) places.push_back(Submit(pool, {value}));
  std::vector<Values> batches;
  while (runner.busy()) {
    batches.push_back(runner.Inputs());
    if (batches.back() != Values{kCulprit}) {
      runner.Complete();
      continue;
    }
    runner.Die();
    pool.dispatcher().AddRunner(&runner);
  }
  EXPECT_THAT(batches, ElementsAre(Values{0}, Values{1, 2}, Values{kCulprit}, Values{3, 4}));
  EXPECT_EQ(CodeOf(places[2]), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(places[2]), HasSubstr("as others did of the same payload before"));
  for (const size_t i : {0, 1, 3, 4}) EXPECT_FALSE(Owed(places[i])) << i;
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, PayloadThatTurnsOutToBeHarmlessIsForgotten) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t unlucky = Submit(pool, {7});
  runner.Die();
  pool.dispatcher().AddRunner(&runner);
  runner.Complete();
  EXPECT_THAT(OutputOf(unlucky), ElementsAre(15));
  Submit(pool, {7});  // Alone, and it runs.
  runner.Complete();
  Submit(pool, {0});
  Submit(pool, {7});
  Submit(pool, {8});
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), ElementsAre(7, 8));
  runner.Complete();
}

// As the echo model would on a device that has room for so many rows.
int CompleteWithin(HandDrivenRunner& runner, size_t rows) {
  int failures = 0;
  while (runner.busy()) {
    if (runner.Inputs().size() <= rows) {
      runner.Complete();
    } else {
      ++failures;
      runner.CompleteWith(absl::ResourceExhaustedError("CUDA out of memory"));
    }
  }
  return failures;
}

TEST_F(DispatcherTest, BatchThatRunsOutOfMemoryIsHalvedAndLaterOnesAreSmaller) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const auto fill = [&] {
    std::vector<uint64_t> places = {Submit(pool, {0})};
    for (int i = 1; i <= 8; ++i) places.push_back(Submit(pool, {i}));
    return places;
  };
  std::vector<uint64_t> places = fill();
  EXPECT_EQ(CompleteWithin(runner, 2), 1 + 2);  // Of eight rows, and of four twice.
  for (const uint64_t place : places) EXPECT_EQ(CodeOf(place), absl::StatusCode::kOk);
  places = fill();
  EXPECT_EQ(CompleteWithin(runner, 2), 0);
  for (const uint64_t place : places) EXPECT_EQ(CodeOf(place), absl::StatusCode::kOk);
  clock_.Advance(2 * BatchCaps::kDoublesAfter);
  fill();
  EXPECT_EQ(CompleteWithin(runner, 8), 0);
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RequestOfManyRowsThatRunsOutOfMemoryIsSplit) {
  EchoPool& pool = Pool({.output_width = 1});
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t place = Submit(pool, {1, 2, 3, 4, 5, 6, 7}, 7);
  EXPECT_GT(CompleteWithin(runner, 2), 0);
  EXPECT_THAT(OutputOf(place), ElementsAre(3, 5, 7, 9, 11, 13, 15));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RowThatAloneRunsOutOfMemoryIsToldAndSaysNothingOfOthers) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t place = Submit(pool, {1});
  EXPECT_EQ(CompleteWithin(runner, 0), 1);
  EXPECT_EQ(CodeOf(place), absl::StatusCode::kResourceExhausted);
  Submit(pool, {0});
  for (int i = 1; i <= 8; ++i) Submit(pool, {i});
  runner.Complete();
  EXPECT_THAT(runner.Inputs(), SizeIs(8));
  runner.Complete();
}

TEST_F(DispatcherTest, RetiringRunnerGetsNoBatchAfterItsOwn) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  const uint64_t first = Submit(pool, {1});
  const uint64_t second = Submit(pool, {2});
  EXPECT_FALSE(pool.dispatcher().RetireRunner(&runner));
  runner.Complete();
  EXPECT_THAT(OutputOf(first), ElementsAre(3));
  EXPECT_FALSE(runner.busy());
  HandDrivenRunner& next = pool.AddRunner();
  next.Complete();
  EXPECT_THAT(OutputOf(second), ElementsAre(5));
  EXPECT_TRUE(pool.dispatcher().RetireRunner(&next));
  Submit(pool, {3});
  EXPECT_FALSE(next.busy());
  pool.dispatcher().Stop(absl::UnavailableError("The test is over."));
}

TEST_F(DispatcherTest, OnlyTheRequestThatKillsReplicasIsGivenUp) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {0});
  std::vector<uint64_t> places;
  for (int i = 0; i < 8; ++i) places.push_back(Submit(pool, {i == 5 ? kCulprit : i}));
  runner.Complete();
  int deaths = 0;
  while (runner.busy()) {
    const std::vector<int32_t> inputs = runner.Inputs();
    if (std::count(inputs.begin(), inputs.end(), kCulprit) == 0) {
      runner.Complete();
      continue;
    }
    ++deaths;
    runner.Die();
    pool.dispatcher().AddRunner(&runner);
  }
  EXPECT_EQ(deaths, 3 + 3);  // As one of eight, of four, of two, and three times alone.
  for (int i = 0; i < 8; ++i) {
    if (i == 5) {
      EXPECT_EQ(CodeOf(places[i]), absl::StatusCode::kInternal);
    } else {
      EXPECT_THAT(OutputOf(places[i]), ElementsAre(2 * i + 1));
    }
  }
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, CancelledRequestOfADeadReplicaIsNotRunAgain) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  Visitor gone;
  Submit(pool, {0});
  SubmitOrPark(pool, {1}, gone);
  const uint64_t neighbour = Submit(pool, {2});
  runner.Complete();
  Cancel(pool, *gone.caller);  // It runs already.
  runner.Die();
  EXPECT_EQ(CodeOf(1), absl::StatusCode::kCancelled);
  pool.dispatcher().AddRunner(&runner);
  EXPECT_THAT(runner.Inputs(), ElementsAre(2));
  runner.Complete();
  EXPECT_THAT(OutputOf(neighbour), ElementsAre(5));
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, RemovedIdleRunnerGetsNoBatch) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  EXPECT_TRUE(pool.dispatcher().RetireRunner(&runner));
  const uint64_t place = Submit(pool, {1});
  EXPECT_FALSE(runner.busy());
  pool.dispatcher().AddRunner(&runner);
  EXPECT_TRUE(runner.busy());
  EXPECT_FALSE(pool.dispatcher().RetireRunner(&runner));
  runner.Complete();
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
}

TEST_F(DispatcherTest, WhereNoReplicaComesInTimeEverybodyIsToldAndServedWhenOneDoes) {
  const auto refused = [](EchoPool& pool) {
    for (const Sample& sample : pool.metrics().Collect()) {
      if (sample.metric == &kRejectionsTotal && sample.labels.back() == "not_ready") {
        return std::get<double>(sample.value);
      }
    }
    return 0.0;
  };
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 1}, .max_batch_size = 1});
  HandDrivenRunner& dying = pool.AddRunner();
  std::vector<uint64_t> places = {Submit(pool, {0}), Submit(pool, {1}), Submit(pool, {2})};
  Visitor visitor;
  SubmitOrPark(pool, {3}, visitor);
  places.push_back(book_->expected() - 1);
  dying.Die();
  const absl::Time from = clock_.Now() + absl::Seconds(2);
  pool.dispatcher().LackReplicas(absl::UnavailableError("its process died"), from);
  Advance(absl::Seconds(2) - absl::Milliseconds(1));
  for (const uint64_t place : places) EXPECT_TRUE(Owed(place)) << "One may still come.";
  Advance(absl::Milliseconds(1));
  places.push_back(Submit(pool, {4}));
  for (const uint64_t place : places) {
    EXPECT_EQ(CodeOf(place), absl::StatusCode::kUnavailable);
    EXPECT_EQ(MessageOf(place), "its process died");
  }
  EXPECT_EQ(visitor.left, 1);
  EXPECT_EQ(refused(pool), 5);
  pool.dispatcher().LackReplicas(absl::UnavailableError("no memory"), from);
  EXPECT_EQ(MessageOf(Submit(pool, {5})), "no memory");
  pool.dispatcher().AddRunner(&dying);  // Its next process.
  const uint64_t served = Submit(pool, {6});
  dying.Complete();
  EXPECT_THAT(OutputOf(served), ElementsAre(13));
  Advance(absl::Hours(1));
  Submit(pool, {7});
  ASSERT_TRUE(dying.busy());
  dying.Complete();
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, ReplicaIsDueWhileOneIsIdleAndHasNoCoreToWaitFor) {
  EchoPool& holder = Pool();
  EchoPool& pool = Pool();
  const auto is_due = [&] { return pool.dispatcher().gauges().replica_due; };
  EXPECT_FALSE(is_due());
  HandDrivenRunner& runner = pool.AddRunner(2);
  EXPECT_TRUE(is_due());
  Submit(pool, {1});
  EXPECT_FALSE(is_due()) << "It is busy.";
  runner.Complete();
  HandDrivenRunner& holding = holder.AddRunner(2);
  Submit(holder, {0});
  Submit(pool, {2});
  EXPECT_FALSE(is_due()) << "It waits for the cores that another model has.";
  holding.Complete();
  EXPECT_FALSE(is_due()) << "It is busy.";
  runner.Complete();
  EXPECT_TRUE(is_due());
}

// ---- Core leases ----

TEST_F(DispatcherTest, ModelsThatShareCoresTakeTurnsAndNeverExceedThem) {
  EchoPool& a = Pool({.max_batch_size = 1});
  EchoPool& b = Pool({.max_batch_size = 1});
  for (int i = 0; i < 2; ++i) {
    a.AddRunner(1);
    b.AddRunner(1);
  }
  for (int i = 0; i < 8; ++i) Submit(a, {i});
  for (int i = 0; i < 8; ++i) Submit(b, {i});
  std::deque<HandDrivenRunner*> running;  // In the order of their starts.
  const auto note_starts = [&] {
    for (EchoPool* const pool : {&a, &b}) {
      for (HandDrivenRunner& runner : pool->runners()) {
        const bool noted = std::find(running.begin(), running.end(), &runner) != running.end();
        if (runner.busy() && !noted) running.push_back(&runner);
      }
    }
  };
  const auto runs = [](EchoPool& pool) {
    return pool.runners()[0].runs() + pool.runners()[1].runs();
  };
  note_starts();
  EXPECT_EQ(runs(a), 2);
  while (!running.empty()) {
    EXPECT_LE(running.size(), 2);
    EXPECT_LE(std::abs(runs(a) - runs(b)), 2);
    HandDrivenRunner* const first = running.front();
    running.pop_front();
    first->Complete();
    note_starts();
  }
  EXPECT_TRUE(a.Quiet());
  EXPECT_TRUE(b.Quiet());
  EXPECT_EQ(book_->order().size(), 16);
}

TEST_F(DispatcherTest, ModelKeepsItsTurnWhileARequestJoinsItsBatch) {
  EchoPool& holder = Pool({.max_batch_size = 1});
  EchoPool& first = Pool();
  EchoPool& second = Pool();
  HandDrivenRunner& holding = holder.AddRunner(2);
  HandDrivenRunner& first_runner = first.AddRunner(2);
  HandDrivenRunner& second_runner = second.AddRunner(2);
  Submit(holder, {0});
  Submit(first, {1});   // Waits for the cores.
  Submit(second, {2});  // Waits behind it.
  SubmitHooked(
      first, 3, [] { return absl::OkStatus(); }, caller_);
  holding.Complete();
  EXPECT_THAT(first_runner.Inputs(), ElementsAre(1, 3));
  EXPECT_FALSE(second_runner.busy());
  first_runner.Complete();
  ASSERT_TRUE(second_runner.busy());
  second_runner.Complete();
  EXPECT_TRUE(first.Quiet() && second.Quiet() && holder.Quiet());
}

TEST_F(DispatcherTest, ModelWithNothingLeftToRunPassesItsTurnOn) {
  EchoPool& holder = Pool();
  EchoPool& first = Pool();
  EchoPool& second = Pool();
  HandDrivenRunner& holding = holder.AddRunner(2);
  HandDrivenRunner& first_runner = first.AddRunner(1);
  HandDrivenRunner& second_runner = second.AddRunner(1);
  Submit(holder, {0});
  Visitor gone;
  SubmitOrPark(first, {1}, gone);
  Submit(second, {2});
  Cancel(first, *gone.caller);
  holding.Complete();
  EXPECT_FALSE(first_runner.busy());
  ASSERT_TRUE(second_runner.busy());
  second_runner.Complete();
}

TEST_F(DispatcherTest, ReplicaThatNeedsNoCoreDoesNotWaitForOne) {
  EchoPool& holder = Pool();
  EchoPool& mixed = Pool();
  HandDrivenRunner& holding = holder.AddRunner(2);
  Submit(holder, {0});
  HandDrivenRunner& on_gpu = mixed.AddRunner(0);
  HandDrivenRunner& on_cpu = mixed.AddRunner(1);
  const uint64_t place = Submit(mixed, {1});
  ASSERT_TRUE(on_gpu.busy());
  EXPECT_FALSE(on_cpu.busy());
  on_gpu.Complete();
  holding.Complete();
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
  EXPECT_TRUE(mixed.Quiet() && holder.Quiet());
}

TEST_F(DispatcherTest, DeathGivesTheCoresBack) {
  EchoPool& pool = Pool({.dispatch = {.max_deaths = 1}});
  EchoPool& other = Pool();
  HandDrivenRunner& dying = pool.AddRunner(2);
  HandDrivenRunner& waiting = other.AddRunner(2);
  const uint64_t lost = Submit(pool, {1});
  Submit(other, {2});
  EXPECT_FALSE(waiting.busy());
  dying.Die();
  EXPECT_EQ(CodeOf(lost), absl::StatusCode::kInternal);
  ASSERT_TRUE(waiting.busy());
  waiting.Complete();
}

// ---- The end ----

TEST_F(DispatcherTest, StopAnswersWhateverWaitsAndWhateverComes) {
  EchoPool& pool = Pool({.dispatch = {.max_queue_rows = 1}, .max_batch_size = 1});
  HandDrivenRunner& dying = pool.AddRunner();
  const uint64_t retried = Submit(pool, {0});
  dying.Die();
  HandDrivenRunner& runner = pool.AddRunner();  // Takes the batch of the dead one.
  const uint64_t staged = Submit(pool, {1});
  const uint64_t queued = Submit(pool, {2});
  Visitor visitor;
  SubmitOrPark(pool, {3}, visitor);
  const uint64_t parked = book_->expected() - 1;
  pool.dispatcher().Stop(absl::UnavailableError("the model is being unloaded"));
  for (const uint64_t place : {staged, queued, parked}) {
    EXPECT_EQ(CodeOf(place), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(visitor.left, 1);
  EXPECT_EQ(CodeOf(Submit(pool, {4})), absl::StatusCode::kUnavailable);
  runner.Complete();
  EXPECT_THAT(OutputOf(retried), ElementsAre(1));
  EXPECT_EQ(pool.dispatcher().gauges().in_flight, 0);
  EXPECT_EQ(pool.dispatcher().gauges().free_buffers, 4);
}

TEST_F(DispatcherTest, AfterStopABatchWhoseReplicaDiesOrFailsIsNotRunAgain) {
  EchoPool& pool = Pool({.max_batch_size = 2});
  HandDrivenRunner& dying = pool.AddRunner();
  HandDrivenRunner& failing = pool.AddRunner();
  const uint64_t first = Submit(pool, {0});
  Submit(pool, {1});
  const uint64_t second = Submit(pool, {2, kCulprit}, 2);
  failing.Complete();
  ASSERT_TRUE(dying.busy() && failing.busy());
  pool.dispatcher().Stop(absl::UnavailableError("the model is being unloaded"));
  HandDrivenRunner& has_culprit = failing.Inputs().size() == 2 ? failing : dying;
  HandDrivenRunner& has_other = &has_culprit == &failing ? dying : failing;
  has_culprit.Complete();
  has_other.Die();
  EXPECT_EQ(CodeOf(second), absl::StatusCode::kInternal);
  EXPECT_FALSE(Owed(first));
  EXPECT_EQ(pool.dispatcher().gauges().in_flight, 0);
  EXPECT_EQ(pool.dispatcher().gauges().free_buffers, 4);
}

TEST_F(DispatcherTest, AfterStopNobodyGetsANeighboursError) {
  EchoPool& pool = Pool();
  HandDrivenRunner& runner = pool.AddRunner();
  Submit(pool, {0});
  const uint64_t neighbour = Submit(pool, {1});
  const uint64_t culprit = Submit(pool, {kCulprit});
  runner.Complete();
  pool.dispatcher().Stop(absl::UnavailableError("the model is being unloaded"));
  runner.Complete();
  EXPECT_EQ(CodeOf(neighbour), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(culprit), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherTest, GlanceIsALittleOldWhileRequestsComeAndExactOnceNoneDoes) {
  EchoPool& pool = Pool({.max_batch_size = 1});
  pool.AddRunner();
  Advance(absl::Seconds(1));
  Submit(pool, {0});
  EXPECT_EQ(pool.dispatcher().glance().gauges.waiting_rows, 0);
  Submit(pool, {1});
  Submit(pool, {2});
  EXPECT_EQ(pool.dispatcher().glance().gauges.waiting_rows, 0) << "It was left before they came.";
  EXPECT_EQ(pool.dispatcher().glance().gauges.in_flight, 3) << "That is always known.";
  Advance(Dispatcher::kGlanceAge);
  EXPECT_EQ(pool.dispatcher().glance().gauges.waiting_rows, 2);
  EXPECT_EQ(pool.dispatcher().glance().gauges.waiting_requests, 2);
  Submit(pool, {3});
  EXPECT_EQ(pool.dispatcher().glance().gauges.waiting_rows, 3) << "The last was too old.";
  while (pool.runners()[0].busy()) pool.runners()[0].Complete();
  Advance(Dispatcher::kGlanceAge);
  EXPECT_EQ(pool.dispatcher().glance().gauges.waiting_rows, 0);
  EXPECT_EQ(pool.dispatcher().glance().gauges.waiting_requests, 0);
}

TEST_F(DispatcherTest, CapacityIsThatOfTheReplicasThatTheCoresCarry) {
  EchoPool& pool = Pool({.max_batch_size = 1});
  HandDrivenRunner& runner = pool.AddRunner(1);
  Submit(pool, {1});
  runner.Complete(absl::Milliseconds(100));
  const double one = pool.dispatcher().gauges().capacity;
  EXPECT_NEAR(one, 10, 0.1);
  pool.AddRunner(1);
  EXPECT_NEAR(pool.dispatcher().gauges().capacity, 2 * one, 0.1);
  pool.AddRunner(1);  // There are two cores.
  EXPECT_NEAR(pool.dispatcher().gauges().capacity, 2 * one, 0.1);
}

TEST_F(DispatcherTest, GaugesTellWhatWaits) {
  EchoPool& pool = Pool({.max_batch_size = 1});
  pool.AddRunner();
  EXPECT_EQ(pool.dispatcher().gauges().oldest_age, absl::ZeroDuration());
  EXPECT_EQ(pool.dispatcher().gauges().idle_runners, 1);
  Submit(pool, {0});
  EXPECT_EQ(pool.dispatcher().gauges().oldest_age, absl::ZeroDuration());  // It runs.
  Submit(pool, {1});
  Submit(pool, {2});
  Advance(absl::Seconds(2));
  const Dispatcher::Gauges gauges = pool.dispatcher().gauges();
  EXPECT_EQ(gauges.queued_rows, 1);
  EXPECT_EQ(gauges.in_flight, 3);
  EXPECT_EQ(gauges.oldest_age, absl::Seconds(2));
  EXPECT_EQ(gauges.idle_runners, 0);
  EXPECT_EQ(gauges.free_buffers, 2);
  while (pool.runners()[0].busy()) pool.runners()[0].Complete();
}

}  // namespace
}  // namespace millrace
