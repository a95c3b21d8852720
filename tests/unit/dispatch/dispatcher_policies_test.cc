// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// What the dispatcher makes of its policies: who is let in, who is given up, who goes first.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/dispatch/dispatcher.h"
#include "tests/fakes/echo_pool.h"
#include "tests/fakes/manual_timer.h"
#include "tests/fakes/virtual_clock.h"
#include "tests/unit/dispatch/answers_fixture.h"

namespace millrace {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

// A stream, or a connection, whose requests at the door are counted.
struct Asker {
  explicit Asker(Overflow how, Flow::Options options = {}) : overflow(how) {
    options.on_parked = [this](int change) { parked += change; };
    caller = std::make_shared<Caller>(std::make_shared<Flow>(std::move(options)));
  }

  const Overflow overflow;
  int parked = 0;
  std::shared_ptr<Caller> caller;
};

class DispatcherPoliciesTest : public AnswersFixture {
 protected:
  EchoPool& Pool(Dispatcher::Options options, int64_t max_batch_size = 1, int replicas = 1) {
    EchoPool& pool =
        pools_.emplace_back(EchoPool::Options{.dispatch = std::move(options),
                                              .max_batch_size = max_batch_size,
                                              .buffers = static_cast<size_t>(replicas) + 2},
                            clock_, timer_, leases_);
    for (int i = 0; i < replicas; ++i) pool.AddRunner();
    return pool;
  }

  // What a request asks for besides its flow's terms.
  struct Terms {
    absl::Duration deadline = absl::InfiniteDuration();  // From now.
    std::optional<absl::Duration> timeout = {};
    int level = 1;
    int64_t rows = 1;
    size_t width = 1;  // Of a row: its shape.
  };

  // Submits a request of the next value; returns its place in book_.
  uint64_t Submit(EchoPool& pool, const Asker& asker, Terms terms) {
    const uint64_t place = book_->expected();
    const std::vector<int32_t> values(static_cast<size_t>(terms.rows) * terms.width,
                                      static_cast<int32_t>(place));
    auto request = pool.Pending(values, terms.rows, book_->Expect(), asker.caller);
    request->overflow = asker.overflow;
    request->deadline = clock_.Now() + terms.deadline;
    request->timeout = terms.timeout;
    request->level = terms.level;
    pool.dispatcher().Submit(std::move(request));
    return place;
  }
  uint64_t Submit(EchoPool& pool, const Asker& asker) { return Submit(pool, asker, Terms()); }

  void Advance(absl::Duration duration) {
    for (const absl::Time end = clock_.Now() + duration; clock_.Now() < end;) {
      clock_.AdvanceTo(std::clamp(timer_.NextTime(), clock_.Now(), end));
      timer_.RunDue(clock_.Now());
    }
  }

  // Runs the batch that runs to its end, `took` after its start.
  static constexpr absl::Duration kBatch = absl::Milliseconds(10);
  void Complete(EchoPool& pool, absl::Duration took = kBatch) {
    Advance(took);
    pool.runners().front().Complete(took);
  }
  // Has batches run, so that their cost is known and fresh.
  void Teach(EchoPool& pool) {
    const Asker teacher(Overflow::kReject);
    for (int i = 0; i < 10; ++i) {
      Submit(pool, teacher);
      Complete(pool);
    }
  }

  // The same, where a batch takes 2 ms and 1 ms per row.
  void TeachRows(EchoPool& pool) {
    const Asker teacher(Overflow::kReject);
    for (int i = 0; i < 40; ++i) {
      const int64_t rows = 1 + i % 8;
      Submit(pool, teacher, {.rows = rows});
      Complete(pool, absl::Milliseconds(2 + rows));
    }
  }

  // How many batches run beside a backlogged high level, with a starvation guard of four of them,
  // until a request of the low level is answered whose rows are so wide.
  int BatchesUntilTheLowGoes(size_t width) {
    Dispatcher::Options options = {.levels = {{}, {}}};
    options.starvation_guard = 4 * kBatch;
    EchoPool& pool = Pool(std::move(options));
    const Asker low(Overflow::kReject);
    const Asker high(Overflow::kReject);
    for (int i = 0; i < 3; ++i) Submit(pool, high);
    const uint64_t starves = Submit(pool, low, {.level = 2, .width = width});
    int batches = 0;
    for (; Owed(starves) && batches < 20; ++batches) {
      Submit(pool, high);
      Complete(pool);
    }
    return batches;
  }

  int64_t CountAnswered(const std::vector<uint64_t>& places) const {
    return std::count_if(places.begin(), places.end(),
                         [&](uint64_t place) { return !Owed(place); });
  }
  // The places in the running batch, one per row.
  std::vector<int32_t> Running(EchoPool& pool) { return pool.runners().front().Inputs(); }

  VirtualClock clock_;
  ManualTimer timer_;
  CoreLeases leases_{4};
  std::deque<EchoPool> pools_;
};

// ---- Who is let in ----

TEST_F(DispatcherPoliciesTest, LatestKeepsTheNewestOfAStream) {
  EchoPool& pool = Pool({});
  const Asker camera(Overflow::kLatest);
  const uint64_t runs = Submit(pool, camera);
  const uint64_t first = Submit(pool, camera);  // Staged.
  const uint64_t second = Submit(pool, camera);
  EXPECT_EQ(CodeOf(first), StatusCode::kAborted);
  EXPECT_THAT(MessageOf(first), HasSubstr("superseded"));
  const uint64_t third = Submit(pool, camera);
  EXPECT_EQ(CodeOf(second), StatusCode::kAborted);
  Complete(pool);
  EXPECT_EQ(CodeOf(runs), StatusCode::kOk);
  EXPECT_THAT(Running(pool), ElementsAre(third));
}

TEST_F(DispatcherPoliciesTest, DropOldestKeepsAsManyAsItsFlowSays) {
  EchoPool& pool = Pool({});
  const Asker camera(Overflow::kDropOldest, {.most_waiting = 2});
  Submit(pool, camera);  // Runs.
  const uint64_t oldest = Submit(pool, camera);
  Submit(pool, camera);
  EXPECT_TRUE(Owed(oldest));
  Submit(pool, camera);
  EXPECT_EQ(CodeOf(oldest), StatusCode::kAborted);
  EXPECT_EQ(pool.dispatcher().gauges().in_flight, 3);
}

TEST_F(DispatcherPoliciesTest, DropOldestTakesItsOwnPlaceInAFullQueue) {
  EchoPool& pool = Pool({.max_queue_rows = 2});
  const Asker other(Overflow::kReject);
  const Asker camera(Overflow::kDropOldest);
  Submit(pool, other);                          // Runs.
  Submit(pool, other);                          // Staged.
  const uint64_t old = Submit(pool, camera);    // Queued.
  const uint64_t theirs = Submit(pool, other);  // Queued.
  const uint64_t young = Submit(pool, camera);
  EXPECT_EQ(CodeOf(old), StatusCode::kAborted);
  EXPECT_TRUE(Owed(theirs));
  EXPECT_TRUE(Owed(young));
}

TEST_F(DispatcherPoliciesTest, WhoHoldsTheWholeQueueIsTurnedOutForOthers) {
  EchoPool& pool = Pool({.max_queue_rows = 4});
  const Asker greedy(Overflow::kReject);
  std::vector<uint64_t> places;
  for (int i = 0; i < 6; ++i) places.push_back(Submit(pool, greedy));
  const Asker modest(Overflow::kReject);
  const uint64_t first = Submit(pool, modest);
  EXPECT_TRUE(Owed(first));
  EXPECT_EQ(CodeOf(places[5]), StatusCode::kResourceExhausted);  // The last of the greedy.
  EXPECT_NE(book_->Find(places[5])->retry_after, std::nullopt);
  EXPECT_TRUE(Owed(places[4]));
  EXPECT_TRUE(Owed(Submit(pool, modest)));                                  // Two each.
  EXPECT_EQ(CodeOf(Submit(pool, modest)), StatusCode::kResourceExhausted);  // It has its share.
}

TEST_F(DispatcherPoliciesTest, BlockingStreamsAreTurnedOutToTheDoorAndLoseNothing) {
  EchoPool& pool = Pool({.max_queue_rows = 4});
  const Asker greedy(Overflow::kBlock);
  std::vector<uint64_t> places;
  for (int i = 0; i < 6; ++i) places.push_back(Submit(pool, greedy));
  EXPECT_EQ(greedy.parked, 0);
  const Asker modest(Overflow::kReject);
  EXPECT_TRUE(Owed(Submit(pool, modest)));
  EXPECT_EQ(greedy.parked, 1);
  places.push_back(Submit(pool, greedy));  // Doesn't overtake the one at the door.
  EXPECT_EQ(greedy.parked, 2);
  while (pool.runners().front().busy()) Complete(pool);
  EXPECT_EQ(greedy.parked, 0);
  EXPECT_TRUE(pool.Quiet());
  for (const uint64_t place : places) EXPECT_EQ(CodeOf(place), StatusCode::kOk);
  std::vector<uint64_t> order;
  for (const uint64_t place : book_->order()) {
    if (std::find(places.begin(), places.end(), place) != places.end()) order.push_back(place);
  }
  EXPECT_EQ(order, places);
}

TEST_F(DispatcherPoliciesTest, PayloadBytesAreBounded) {
  EchoPool& pool = Pool({.max_queue_bytes = 12});  // Three requests of one value.
  const Asker stream(Overflow::kBlock);
  const Asker call(Overflow::kReject);
  for (int i = 0; i < 3; ++i) Submit(pool, stream);
  EXPECT_EQ(pool.dispatcher().gauges().held_bytes, 12);
  Submit(pool, stream);
  EXPECT_EQ(stream.parked, 1);
  EXPECT_EQ(CodeOf(Submit(pool, call)), StatusCode::kResourceExhausted);
  Complete(pool);
  EXPECT_EQ(stream.parked, 0);
  while (pool.runners().front().busy()) Complete(pool);
  EXPECT_EQ(pool.dispatcher().gauges().held_bytes, 0);
}

TEST_F(DispatcherPoliciesTest, ModelsShareAMemoryBudget) {
  MemoryBudget memory(8);
  EchoPool& one = Pool({.memory = &memory});
  EchoPool& other = Pool({.memory = &memory});
  const Asker first(Overflow::kBlock);
  const Asker second(Overflow::kBlock);
  Submit(one, first);
  Submit(one, first);
  EXPECT_EQ(memory.taken(), 8);
  const uint64_t waits = Submit(other, second);
  EXPECT_EQ(second.parked, 1);
  Complete(one);
  EXPECT_EQ(second.parked, 0);
  Complete(other);
  EXPECT_EQ(CodeOf(waits), StatusCode::kOk);
  Complete(one);
  EXPECT_EQ(memory.taken(), 0);
}

TEST_F(DispatcherPoliciesTest, SupersededFramesLetGoOfTheirPayloads) {
  EchoPool& pool = Pool({}, 4);
  const Asker camera(Overflow::kLatest);
  Submit(pool, camera);  // Runs.
  std::vector<std::weak_ptr<PendingRequest>> frames;
  for (int i = 0; i < 50; ++i) {
    auto frame = pool.Pending({i}, 1, book_->Expect(), camera.caller);
    frame->overflow = camera.overflow;
    frames.push_back(frame);
    pool.dispatcher().Submit(std::move(frame));
  }
  const auto kept = std::count_if(frames.begin(), frames.end(),
                                  [](const auto& frame) { return !frame.expired(); });
  EXPECT_EQ(kept, 1);
}

TEST_F(DispatcherPoliciesTest, NobodyIsTurnedOutForARequestThatFindsNoRoomAllTheSame) {
  EchoPool& pool = Pool({.max_queue_rows = 6}, 2);
  const Asker greedy(Overflow::kReject);
  const Asker other(Overflow::kReject);
  Submit(pool, greedy, {.rows = 2});  // Runs.
  Submit(pool, greedy, {.rows = 2});  // Staged.
  std::vector<uint64_t> places;
  for (int i = 0; i < 4; ++i) places.push_back(Submit(pool, greedy));
  for (int i = 0; i < 2; ++i) places.push_back(Submit(pool, other));
  const Asker large(Overflow::kReject);
  const uint64_t refused = Submit(pool, large, {.rows = 3});  // It would have more than they then.
  EXPECT_EQ(CodeOf(refused), StatusCode::kResourceExhausted);
  for (const uint64_t place : places) EXPECT_TRUE(Owed(place));
  const uint64_t fits = Submit(pool, large, {.rows = 2});
  EXPECT_TRUE(Owed(fits));
  EXPECT_EQ(CodeOf(places[3]), StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeOf(places[2]), StatusCode::kResourceExhausted);
}

TEST_F(DispatcherPoliciesTest, RefusalSaysThatTheBytesRanOut) {
  MemoryBudget memory(16);
  EchoPool& one = Pool({.max_queue_bytes = 8, .memory = &memory});
  EchoPool& other = Pool({.max_queue_bytes = 16, .memory = &memory});
  const Asker call(Overflow::kReject);
  Submit(one, call);
  Submit(one, call);
  EXPECT_THAT(MessageOf(Submit(one, call)),
              testing::AllOf(HasSubstr("Exceeds maximum queue size"), HasSubstr("has 4 bytes"),
                             HasSubstr("holds 8 of at most 8")));
  Submit(other, call);
  Submit(other, call);
  EXPECT_THAT(MessageOf(Submit(other, call)),
              HasSubstr("all models together hold 16 of at most 16"));
}

TEST_F(DispatcherPoliciesTest, BytesOfTheSupersededAreThereForTheNewest) {
  MemoryBudget memory(8);
  EchoPool& pool = Pool({.memory = &memory});
  const Asker camera(Overflow::kLatest);
  Submit(pool, camera);  // Runs.
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(Owed(Submit(pool, camera)));
    EXPECT_EQ(memory.taken(), 8);
  }
}

TEST_F(DispatcherPoliciesTest, ThoseOfADeadReplicaAreTheOldestOfTheirFlow) {
  EchoPool& pool = Pool({}, 2);
  const Asker camera(Overflow::kDropOldest, {.most_waiting = 3});
  const uint64_t runs = Submit(pool, camera);
  const uint64_t first = Submit(pool, camera);
  const uint64_t second = Submit(pool, camera);
  Complete(pool);
  EXPECT_EQ(CodeOf(runs), StatusCode::kOk);
  EXPECT_THAT(Running(pool), ElementsAre(first, second));
  pool.runners().front().Die();
  Submit(pool, camera);
  EXPECT_TRUE(Owed(first));
  Submit(pool, camera);
  EXPECT_EQ(CodeOf(first), StatusCode::kAborted);
  EXPECT_TRUE(Owed(second));
}

TEST_F(DispatcherPoliciesTest, CancelledCallsOfAConnectionLeaveWhereverTheyWait) {
  EchoPool& pool = Pool({.max_queue_rows = 3});
  const auto connection = std::make_shared<Flow>();
  std::vector<std::shared_ptr<Caller>> callers;
  std::vector<uint64_t> places;
  for (int i = 0; i < 8; ++i) {  // One runs, one is staged, three are in the queue, three parked.
    callers.push_back(std::make_shared<Caller>(connection));
    places.push_back(book_->expected());
    auto call = pool.Pending({i}, 1, book_->Expect(), callers.back());
    call->overflow = Overflow::kBlock;
    pool.dispatcher().Submit(std::move(call));
  }
  EXPECT_EQ(pool.dispatcher().gauges().parked, 3);
  for (const int gone : {1, 3, 6}) {
    callers[gone]->Cancel();
    pool.dispatcher().Cancel(*callers[gone]);
    EXPECT_EQ(CodeOf(places[gone]), StatusCode::kCancelled);
  }
  while (pool.runners().front().busy()) Complete(pool);
  for (const int left : {0, 2, 4, 5, 7}) EXPECT_EQ(CodeOf(places[left]), StatusCode::kOk);
  EXPECT_TRUE(pool.Quiet());
}

TEST_F(DispatcherPoliciesTest, LatestTakesThePlaceOfItsStagedFrameWhereTheQueueIsFull) {
  EchoPool& pool = Pool({.max_queue_rows = 2}, 2);
  const Asker camera(Overflow::kLatest);
  const Asker first(Overflow::kReject);
  const Asker second(Overflow::kReject);
  Submit(pool, first);  // Runs.
  const uint64_t old = Submit(pool, camera);
  for (const Asker* asker : {&first, &second, &first}) Submit(pool, *asker);
  const uint64_t young = Submit(pool, camera);
  EXPECT_EQ(CodeOf(old), StatusCode::kAborted);
  EXPECT_TRUE(Owed(young));
  EXPECT_LE(pool.dispatcher().gauges().queued_rows, 2);
}

TEST_F(DispatcherPoliciesTest, NoFrameIsDroppedForBytesThatItWouldNotFree) {
  EchoPool& pool = Pool({.max_queue_bytes = 40});
  const Asker other(Overflow::kReject);
  const Asker camera(Overflow::kDropOldest);
  Submit(pool, other, {.rows = 7});  // 28 bytes.
  std::vector<uint64_t> frames;
  for (int i = 0; i < 3; ++i) frames.push_back(Submit(pool, camera));
  const uint64_t large = Submit(pool, camera, {.rows = 4});
  EXPECT_EQ(CodeOf(large), StatusCode::kResourceExhausted);
  for (const uint64_t frame : frames) EXPECT_TRUE(Owed(frame));
}

// ---- Deadlines ----

TEST_F(DispatcherPoliciesTest, DeadlineThatCannotBeMetIsAnsweredAtOnce) {
  EchoPool& pool = Pool({});
  Teach(pool);
  const Asker call(Overflow::kReject);
  EXPECT_EQ(CodeOf(Submit(pool, call, {.deadline = kBatch / 2})), StatusCode::kDeadlineExceeded);
  Submit(pool, call);  // Runs for 10 ms.
  const uint64_t late = Submit(pool, call, {.deadline = 1.5 * kBatch});
  EXPECT_EQ(CodeOf(late), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(MessageOf(late), HasSubstr("Request timeout expired"));
  EXPECT_TRUE(Owed(Submit(pool, call, {.deadline = 2.5 * kBatch})));
}

TEST_F(DispatcherPoliciesTest, OldPredictionsRefuseNobody) {
  EchoPool& pool = Pool({});
  Teach(pool);
  Advance(absl::Seconds(2));
  const Asker call(Overflow::kReject);
  EXPECT_TRUE(Owed(Submit(pool, call, {.deadline = kBatch / 2})));
}

TEST_F(DispatcherPoliciesTest, RequestIsGivenUpWhenItCanNoLongerMakeItsDeadline) {
  EchoPool& pool = Pool({});
  Teach(pool);
  const Asker call(Overflow::kReject);
  Submit(pool, call);
  const uint64_t waits = Submit(pool, call, {.deadline = 3 * kBatch});
  Advance(1.9 * kBatch);  // The running batch takes longer than ever.
  EXPECT_TRUE(Owed(waits));
  Advance(0.2 * kBatch);
  EXPECT_EQ(CodeOf(waits), StatusCode::kDeadlineExceeded);
}

TEST_F(DispatcherPoliciesTest, UrgentRequestGoesOutOfTurn) {
  EchoPool& pool = Pool({});
  Teach(pool);
  const Asker patient(Overflow::kReject);
  const Asker urgent(Overflow::kReject);
  Submit(pool, patient);  // Runs.
  Submit(pool, patient);  // Staged.
  for (int i = 0; i < 4; ++i) Submit(pool, patient);
  const Asker second(Overflow::kReject);
  for (int i = 0; i < 4; ++i) Submit(pool, second);
  Advance(0.5 * kBatch);
  const uint64_t place = Submit(pool, urgent, {.deadline = 3.4 * kBatch});
  Complete(pool, 0.5 * kBatch);
  Complete(pool);
  EXPECT_THAT(Running(pool), ElementsAre(place));
}

TEST_F(DispatcherPoliciesTest, UrgencyIsSeenBehindRequestsThatOnlyMayNotGetOld) {
  EchoPool& pool = Pool({.max_queue_rows = 1000});
  Teach(pool);
  const Asker camera(Overflow::kBlock, {.max_age = 5 * kBatch});
  for (int i = 0; i < 2; ++i) Submit(pool, camera);  // Runs; staged.
  for (int i = 0; i < 8; ++i) Submit(pool, camera);  // They expire before the urgent one.
  const Asker second(Overflow::kBlock, {.max_age = 5 * kBatch});
  for (int i = 0; i < 8; ++i) Submit(pool, second);
  const Asker urgent(Overflow::kReject);
  std::vector<uint64_t> places;
  for (int i = 0; i < 3; ++i) {
    places.push_back(Submit(pool, urgent, {.deadline = (4.5 + i) * kBatch}));
  }
  for (int i = 0; i < 6; ++i) Complete(pool);
  for (const uint64_t place : places) EXPECT_EQ(CodeOf(place), StatusCode::kOk);
}

TEST_F(DispatcherPoliciesTest, FlowWithLaxDeadlinesKeepsNobodyElseOut) {
  EchoPool& pool = Pool({.max_queue_rows = 1000});
  Teach(pool);
  std::deque<Asker> patient;
  for (int i = 0; i < 10; ++i) {
    patient.emplace_back(Overflow::kReject);
    for (int k = 0; k < 4; ++k) Submit(pool, patient.back());
  }
  const Asker lax(Overflow::kReject);
  for (int i = 0; i < 10; ++i) Submit(pool, lax, {.deadline = 100 * kBatch});
  const Asker urgent(Overflow::kReject);
  const uint64_t place = Submit(pool, urgent, {.deadline = 4.5 * kBatch});
  for (int i = 0; i < 5; ++i) Complete(pool);
  EXPECT_EQ(CodeOf(place), StatusCode::kOk);
}

TEST_F(DispatcherPoliciesTest, DearRequestIsNotRefusedForCheapOnesBeforeIt) {
  EchoPool& pool = Pool({.max_queue_rows = 1000});
  const Asker teacher(Overflow::kReject);
  for (int i = 0; i < 10; ++i) {
    Submit(pool, teacher);
    Complete(pool, absl::Milliseconds(1));
    Submit(pool, teacher, {.width = 2});
    Complete(pool, absl::Milliseconds(50));
  }
  for (int i = 0; i < 10; ++i) Submit(pool, teacher);
  const Asker dear(Overflow::kReject);
  const absl::Duration deadline = absl::Milliseconds(100);
  EXPECT_TRUE(Owed(Submit(pool, dear, {.deadline = deadline, .width = 2})));
}

TEST_F(DispatcherPoliciesTest, BatchThatGetsNoLeaseIsNotCut) {
  EchoPool& pool = Pool({}, 8, 0);
  HandDrivenRunner& runner = pool.AddRunner(4);
  TeachRows(pool);
  EchoPool& other = Pool({}, 1, 0);
  HandDrivenRunner& theirs = other.AddRunner(4);
  const Asker holder(Overflow::kReject);
  Submit(other, holder);  // Has all cores.
  for (int i = 0; i < 6; ++i) {
    const Asker asker(Overflow::kReject);
    Submit(pool, asker, {.deadline = absl::Milliseconds(i == 2 ? 6.5 : 500)});
  }
  EXPECT_FALSE(runner.busy());
  EXPECT_EQ(pool.dispatcher().gauges().queued_rows, 0);  // All are staged.
  theirs.Complete();
  EXPECT_TRUE(runner.busy());
  EXPECT_EQ(runner.Inputs().size(), 4);
}

TEST_F(DispatcherPoliciesTest, LeaseOfABatchWhoseMembersAreAllTooLateIsGivenBack) {
  EchoPool& pool = Pool({}, 8, 0);
  HandDrivenRunner& runner = pool.AddRunner(4);
  EchoPool& other = Pool({}, 1, 0);
  HandDrivenRunner& theirs = other.AddRunner(4);
  const Asker asker(Overflow::kReject);
  for (int i = 0; i < 10; ++i) {  // A batch takes 10 ms.
    Submit(pool, asker);
    Advance(kBatch);
    runner.Complete(kBatch);
  }
  Submit(other, asker);  // Has all cores.
  std::vector<uint64_t> late;
  for (int i = 0; i < 3; ++i) late.push_back(Submit(pool, asker, {.deadline = 1.5 * kBatch}));
  clock_.AdvanceTo(clock_.Now() + kBatch);  // Too late by now, and the timer is late itself.
  theirs.Complete();
  for (const uint64_t place : late) EXPECT_EQ(CodeOf(place), StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(runner.busy());
  Submit(other, asker);
  EXPECT_TRUE(theirs.busy());  // The cores are free.
}

TEST_F(DispatcherPoliciesTest, BatchIsCutSoThatItsMostUrgentMemberMakesIt) {
  EchoPool& pool = Pool({}, 8);
  TeachRows(pool);
  const Asker asker(Overflow::kReject);
  Submit(pool, asker);  // Runs for 3 ms.
  std::vector<uint64_t> places;
  for (int i = 0; i < 6; ++i) {
    const Asker other(Overflow::kReject);
    places.push_back(Submit(pool, other, {.deadline = absl::Milliseconds(i == 2 ? 8.5 : 500)}));
  }
  Complete(pool, absl::Milliseconds(3));
  const std::vector<int32_t> running = Running(pool);  // 5.5 ms are left: three rows.
  EXPECT_EQ(running.size(), 3);
  EXPECT_THAT(running, testing::Contains(places[2]));
  Complete(pool, absl::Milliseconds(5));
  EXPECT_EQ(Running(pool).size(), 3);
}

TEST_F(DispatcherPoliciesTest, QueueTimeoutIsToldWhenItPasses) {
  Dispatcher::Options options;
  options.levels[0].default_timeout = absl::Milliseconds(20);
  EchoPool& pool = Pool(std::move(options));
  const Asker call(Overflow::kReject);
  Submit(pool, call);
  const uint64_t staged = Submit(pool, call);
  const uint64_t queued = Submit(pool, call);
  Advance(absl::Milliseconds(19));
  EXPECT_TRUE(Owed(staged) && Owed(queued));
  Advance(absl::Milliseconds(1));
  EXPECT_EQ(CodeOf(staged), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CodeOf(queued), StatusCode::kDeadlineExceeded);
}

TEST_F(DispatcherPoliciesTest, OwnTimeoutOverridesTheDefaultWhereThatIsAllowed) {
  Dispatcher::Options options;
  options.levels[0] = {.timeout_action = QueuePolicy::TimeoutAction::kDelay,
                       .default_timeout = absl::Milliseconds(20),
                       .allow_timeout_override = true};
  EchoPool& pool = Pool(std::move(options));
  const Asker first(Overflow::kReject);
  const Asker second(Overflow::kReject);
  Submit(pool, first);  // Runs.
  Submit(pool, first);  // Staged.
  const uint64_t hasty = Submit(pool, first, {.timeout = absl::Milliseconds(5)});
  const uint64_t patient = Submit(pool, second);
  Advance(absl::Milliseconds(6));  // The hasty one is delayed now, not refused.
  EXPECT_TRUE(Owed(hasty));
  Complete(pool);
  Complete(pool);
  EXPECT_THAT(Running(pool), ElementsAre(patient));
  Complete(pool);
  EXPECT_THAT(Running(pool), ElementsAre(hasty));
}

TEST_F(DispatcherPoliciesTest, FramesOlderThanTheirStreamAllowsAreDropped) {
  EchoPool& pool = Pool({});
  const Asker camera(Overflow::kBlock, {.max_age = absl::Milliseconds(15)});
  Submit(pool, camera);
  const uint64_t old = Submit(pool, camera);
  Advance(absl::Milliseconds(15));
  EXPECT_EQ(CodeOf(old), StatusCode::kAborted);
  EXPECT_THAT(MessageOf(old), HasSubstr("millrace-max-age"));
}

// ---- Priorities ----

TEST_F(DispatcherPoliciesTest, HigherLevelTakesAStagedRow) {
  EchoPool& pool = Pool({.levels = {{}, {}}}, 2);
  const Asker low(Overflow::kReject);
  const Asker high(Overflow::kReject);
  Submit(pool, low, {.level = 2});  // Runs.
  const uint64_t first = Submit(pool, low, {.level = 2});
  const uint64_t second = Submit(pool, low, {.level = 2});
  const uint64_t outranks = Submit(pool, high, {.level = 1});
  Complete(pool);
  EXPECT_THAT(Running(pool), testing::UnorderedElementsAre(first, outranks));
  Complete(pool);
  EXPECT_THAT(Running(pool), ElementsAre(second));
}

TEST_F(DispatcherPoliciesTest, OrderOfAFlowIsKeptOverShapesWhenAHigherLevelComes) {
  EchoPool& pool = Pool({.levels = {{}, {}}}, 2);
  const Asker low(Overflow::kReject);
  const Asker high(Overflow::kReject);
  Submit(pool, low, {.level = 2});  // Runs.
  const uint64_t first = Submit(pool, low, {.level = 2});
  const uint64_t second = Submit(pool, low, {.level = 2});
  const uint64_t third = Submit(pool, low, {.level = 2, .width = 2});  // Staged, too.
  Submit(pool, high, {.level = 1});  // The first and second can't go back behind the third.
  for (int i = 0; i < 4; ++i) Complete(pool);
  const auto place_of = [&](uint64_t place) {
    const auto& order = book_->order();
    return std::find(order.begin(), order.end(), place) - order.begin();
  };
  EXPECT_LT(place_of(first), place_of(third));
  EXPECT_LT(place_of(second), place_of(third));
}

TEST_F(DispatcherPoliciesTest, OverdueRequestsLeaveTheHigherLevelEveryOtherPlace) {
  Dispatcher::Options options = {.max_queue_rows = 1000, .levels = {{}, {}}};
  options.starvation_guard = kBatch;
  EchoPool& pool = Pool(std::move(options));
  const Asker low(Overflow::kReject);
  const Asker high(Overflow::kReject);
  std::vector<uint64_t> lows, highs;
  for (int i = 0; i < 40; ++i) {
    lows.push_back(Submit(pool, low, {.level = 2}));
    highs.push_back(Submit(pool, high, {.level = 1}));
  }
  for (int i = 0; i < 40; ++i) Complete(pool);
  EXPECT_GE(CountAnswered(highs), 19);
  EXPECT_GE(CountAnswered(lows), 18);
}

TEST_F(DispatcherPoliciesTest, OverdueRequestsOfManyRowsGetNoMoreThanHalfOfThem) {
  for (const int64_t rows : {3, 5, 8}) {
    Dispatcher::Options options = {.max_queue_rows = 10000, .levels = {{}, {}}};
    options.starvation_guard = kBatch;
    EchoPool& pool = Pool(std::move(options), 8);
    const Asker low(Overflow::kReject);
    const Asker high(Overflow::kReject);
    std::vector<uint64_t> lows, highs;
    for (int i = 0; i < 1000; ++i) highs.push_back(Submit(pool, high, {.level = 1}));
    for (int i = 0; i < 200; ++i) lows.push_back(Submit(pool, low, {.level = 2, .rows = rows}));
    for (int i = 0; i < 60; ++i) Complete(pool);
    EXPECT_GT(CountAnswered(lows) * rows, CountAnswered(highs) / 3) << rows;
    EXPECT_LE(CountAnswered(lows) * rows, CountAnswered(highs) + 2 * rows) << rows;
    pool.dispatcher().Stop(absl::UnavailableError("The test is over."));
  }
}

TEST_F(DispatcherPoliciesTest, StarvationGuardLetsTheLowOfAnotherShapeGo) {
  const int batches = BatchesUntilTheLowGoes(2);
  EXPECT_GT(batches, 4);
  EXPECT_LE(batches, 8);
}

TEST_F(DispatcherPoliciesTest, LowerLevelsFillWhatAHigherOneLeaves) {
  EchoPool& pool = Pool({.max_queue_rows = 1000, .levels = {{}, {}}}, 8);
  const Asker low(Overflow::kReject);
  const Asker high(Overflow::kReject);
  for (int i = 0; i < 40; ++i) {
    Submit(pool, high, {.level = 1, .rows = 5});
    Submit(pool, low, {.level = 2});
  }
  Complete(pool);  // What was staged before there was more.
  for (int i = 0; i < 10; ++i) {
    EXPECT_GE(Running(pool).size(), 7);
    Complete(pool);
  }
}

TEST_F(DispatcherPoliciesTest, NobodyGoesBackForARequestThatFindsNoRoomAllTheSame) {
  EchoPool& pool = Pool({.levels = {{}, {}}}, 8);
  const Asker low(Overflow::kReject);
  const Asker high(Overflow::kReject);
  Submit(pool, low, {.level = 2});  // Runs.
  Submit(pool, high, {.level = 1, .rows = 3});
  for (int i = 0; i < 5; ++i) Submit(pool, low, {.level = 2});
  Submit(pool, high, {.level = 1, .rows = 6});
  Complete(pool);
  EXPECT_EQ(Running(pool).size(), 8);
}

TEST_F(DispatcherPoliciesTest, StarvationGuardLetsTheLowGo) {
  const int batches = BatchesUntilTheLowGoes(1);
  EXPECT_GT(batches, 4);
  EXPECT_LE(batches, 7);
}

// ---- Overload ----

TEST_F(DispatcherPoliciesTest, StandingQueueIsShedButNotItsBlockingStreams) {
  Dispatcher::Options options = {.max_queue_rows = 1000};
  options.overload = {.target = 3 * kBatch, .interval = 10 * kBatch};
  EchoPool& pool = Pool(std::move(options));
  const Asker stream(Overflow::kBlock);
  std::deque<Asker> calls;
  std::vector<uint64_t> blocking, shed;
  for (int i = 0; i < 40; ++i) {
    blocking.push_back(Submit(pool, stream));
    shed.push_back(Submit(pool, calls.emplace_back(Overflow::kReject)));
  }
  for (int i = 0; i < 60 && pool.runners().front().busy(); ++i) Complete(pool);
  int refused = 0;
  for (const uint64_t place : shed) {
    if (CodeOf(place) != StatusCode::kResourceExhausted) continue;
    ++refused;
    EXPECT_NE(book_->Find(place)->retry_after, std::nullopt);
    EXPECT_THAT(MessageOf(place), HasSubstr("Exceeds maximum queue size"));
  }
  EXPECT_GT(refused, 5);
  for (const uint64_t place : blocking) EXPECT_NE(CodeOf(place), StatusCode::kResourceExhausted);
}

// ---- Holding ----

TEST_F(DispatcherPoliciesTest, HoldWaitsForStreamsThatReturnAndNotForLonger) {
  Dispatcher::Options options;
  options.policy.hold = Hold::kReturners;
  EchoPool& pool = Pool(std::move(options), 8);
  const Asker one(Overflow::kBlock);
  const Asker other(Overflow::kBlock);
  const absl::Duration think = absl::Milliseconds(1);
  // Both return 1 ms after their answers; a batch takes 10 ms, all of it setup.
  for (int i = 0; i < 20; ++i) {
    Submit(pool, one);
    Submit(pool, other);
    while (pool.runners().front().busy()) Complete(pool);
    Advance(think);
    if (!pool.runners().front().busy()) continue;
  }
  Submit(pool, one);
  EXPECT_FALSE(pool.runners().front().busy());  // The other one is due.
  Submit(pool, other);
  EXPECT_TRUE(pool.runners().front().busy());
  EXPECT_EQ(Running(pool).size(), 2);
  Complete(pool);
  Advance(think);
  const uint64_t alone = Submit(pool, one);
  Advance(2 * think);  // The other one doesn't come.
  EXPECT_THAT(Running(pool), ElementsAre(alone));
}

}  // namespace
}  // namespace millrace
