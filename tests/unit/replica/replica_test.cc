// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// The life of a replica without a worker program: the test plays the worker at the other ends of
// the sockets and the mailbox, and a sleeping child stands for its process.
#include "server/replica/replica.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/thread.h"
#include "server/base/timer_thread.h"
#include "server/channel/worker_protocol.h"
#include "tests/fakes/answer_book.h"
#include "tests/fakes/echo_model.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The other side of one process of a replica.
class PlayedWorker {
 public:
  PlayedWorker(ControlSocket control, UniqueFd event, ModelMemory* memory)
      : control_(std::move(control)),
        event_(std::move(event)),
        memory_(memory),
        mailbox_(memory->mailbox(0)) {}

  void SayReady(const absl::Status& status = absl::OkStatus()) {
    EXPECT_TRUE(
        control_.Send(ToJson(ReadyReply{.status = status, .notes = {}, .warmup_ns = {}})).ok());
  }

  // Waits for a batch and runs it as the echo model; returns its inputs.
  std::vector<int32_t> RunBatch() {
    const uint32_t index = mailbox_.WaitForBatch();
    const uint32_t posted = memory_->mailbox(0)->posted;
    std::byte* const begin = memory_->buffer_begin(index);
    BatchHeader& header = *reinterpret_cast<BatchHeader*>(begin);
    std::vector<int32_t> values = Int32s({begin + header.inputs[0].offset, header.inputs[0].bytes});
    const std::vector<int32_t> outputs = Echoes(values);
    std::memcpy(begin + header.outputs_begin, outputs.data(), header.inputs[0].bytes);
    header.outputs[0] = header.inputs[0];
    header.outputs[0].offset = header.outputs_begin;
    header.output_count = 1;
    header.status_code = 0;
    EXPECT_EQ(memory_->mailbox(0)->completed + 1, posted) << "More was posted than one batch.";
    Complete();
    return values;
  }

  void WaitForBatch() { mailbox_.WaitForBatch(); }

  void Complete() {
    if (!mailbox_.Complete()) return;
    const uint64_t one = 1;
    EXPECT_EQ(write(event_.get(), &one, sizeof(one)), sizeof(one));
  }

  void Die() { control_.release(); }

 private:
  ControlSocket control_;
  const UniqueFd event_;
  ModelMemory* const memory_;
  Mailbox mailbox_;
};

class ReplicaTest : public testing::Test {
 protected:
  ReplicaTest() {
    std::vector<BatchBuffer*> buffers;
    for (size_t i = 0; i < memory_->buffers(); ++i) buffers.push_back(&memory_->buffer(i));
    book_->on_delivered = [this] {
      MutexLock lock(mutex_);
      answered_.NotifyAll();
    };
    dispatcher_ = Dispatcher::Create({.max_deaths = 1000}, signature_, std::move(buffers), clock_,
                                     timer_, leases_, metrics_);
  }

  void StartReplica(absl::Duration start_timeout = absl::Minutes(5)) {
    replica_.reset();  // First: its end signals the event that the next one heeds.
    replica_ = std::make_unique<Replica>(
        Replica::Options{.index = 0,
                         .stop_event = stop_event_.get(),
                         .placement = {},
                         .start_timeout = start_timeout},
        Replica::Context{
            .signature = signature_.get(),
            .memory = memory_.get(),
            .dispatcher = dispatcher_.get(),
            .metrics = &metrics_,
            .clock = &clock_,
            .limit = &limit_,
            .fork = [this](const ForkCommand& command, std::string) { return Fork(command); },
            .on_warm = [](const std::vector<int64_t>&, ReplicaKind) {},
            .on_state = [this](int, const absl::Status& state) { NoteState(state); }});
  }

  absl::StatusOr<ForkedReplica> Fork(const ForkCommand&) {
    {
      MutexLock lock(mutex_);
      if (!fork_errors_.empty()) {
        const absl::Status error = fork_errors_.front();
        fork_errors_.pop_front();
        return error;
      }
    }
    auto sockets = *ControlSocket::CreatePair();
    const auto unused = *ControlSocket::CreatePair();
    auto process = ChildProcess::Spawn("/bin/sleep", {"600"}, unused.first, STDERR_FILENO);
    UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    UniqueFd copy(dup(event.get()));
    MutexLock lock(mutex_);
    workers_.emplace_back(std::move(sockets.second), std::move(copy), memory_.get());
    changed_.NotifyAll();
    return ForkedReplica{*std::move(process), std::move(sockets.first), std::move(event), {}};
  }

  // The worker of the next process.
  PlayedWorker& NextWorker() {
    MutexLock lock(mutex_);
    while (workers_.size() <= workers_seen_) changed_.Wait(mutex_);
    return workers_[workers_seen_++];
  }

  void NoteState(const absl::Status& state) {
    if (!state.ok() && on_failure_) on_failure_();
    MutexLock lock(mutex_);
    states_.push_back(state);
    changed_.NotifyAll();
  }

  // The next thing that the replica says of itself.
  absl::Status NextState() {
    MutexLock lock(mutex_);
    while (states_.size() <= states_seen_) changed_.Wait(mutex_);
    return states_[states_seen_++];
  }

  uint64_t Submit(const std::vector<int32_t>& values) {
    auto request = EchoPending(*signature_, values, 1, book_->Expect(), caller_);
    request->arrival = clock_.Now();
    dispatcher_->Submit(std::move(request));
    return book_->expected() - 1;
  }

  // Waits for the answer of a place.
  const Response& Answer(uint64_t place) {
    MutexLock lock(mutex_);
    while (book_->Find(place) == nullptr) answered_.Wait(mutex_);
    return *book_->Find(place);
  }

  std::vector<int32_t> OutputOf(uint64_t place) {
    const Response& response = Answer(place);
    EXPECT_TRUE(response.status.ok()) << response.status;
    return response.status.ok() ? Int32s(response.outputs[0].data) : std::vector<int32_t>();
  }

  Clock& clock_ = Clock::Real();
  TimerThread timer_{clock_};
  CoreLeases leases_{4};
  const std::shared_ptr<const ModelSignature> signature_ = EchoSignature(8);
  ModelMetrics metrics_{"echo", "1", 8, clock_};
  const std::unique_ptr<ModelMemory> memory_ = *ModelMemory::Create(
      {.mailboxes = 1, .buffers = 3, .buffer_bytes = kBatchHeaderBytes + (1 << 16)});
  const std::shared_ptr<Caller> caller_ = std::make_shared<Caller>(std::make_shared<Flow>());
  const std::shared_ptr<AnswerBook> book_ = std::make_shared<AnswerBook>();
  std::shared_ptr<Dispatcher> dispatcher_;
  // A replica hangs when its first batches of a shape run for so long.
  ExecutionLimit limit_{{.first_runs = absl::Seconds(2)}};

  std::function<void()> on_failure_;  // On the replica's thread, between two of its processes.
  Mutex mutex_;
  CondVar changed_;
  CondVar answered_;
  std::deque<absl::Status> fork_errors_ ABSL_GUARDED_BY(mutex_);
  std::deque<PlayedWorker> workers_ ABSL_GUARDED_BY(mutex_);
  size_t workers_seen_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<absl::Status> states_ ABSL_GUARDED_BY(mutex_);
  size_t states_seen_ ABSL_GUARDED_BY(mutex_) = 0;
  const UniqueFd stop_event_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::unique_ptr<Replica> replica_;
};

TEST_F(ReplicaTest, ServesOnceItsProcessIsReady) {
  StartReplica();
  EXPECT_EQ(replica_->pid(), 0);
  PlayedWorker& worker = NextWorker();
  const uint64_t place = Submit({1, 2});
  worker.SayReady();
  EXPECT_TRUE(NextState().ok());
  EXPECT_GT(replica_->pid(), 0);
  EXPECT_THAT(worker.RunBatch(), ElementsAre(1, 2));
  EXPECT_THAT(OutputOf(place), ElementsAre(3, 5));
  const uint64_t next = Submit({3});
  EXPECT_THAT(worker.RunBatch(), ElementsAre(3));
  EXPECT_THAT(OutputOf(next), ElementsAre(7));
  EXPECT_EQ(replica_->busy_for(), std::nullopt);
}

TEST_F(ReplicaTest, BatchOfADeadProcessRunsInTheNextOne) {
  StartReplica();
  PlayedWorker& first = NextWorker();
  first.SayReady();
  const uint64_t place = Submit({1});
  first.WaitForBatch();
  EXPECT_NE(replica_->busy_for(), std::nullopt);
  first.Die();
  EXPECT_TRUE(NextState().ok());
  const absl::Status death = NextState();
  EXPECT_EQ(death.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(death.message()), HasSubstr("was killed by signal 9"));
  PlayedWorker& second = NextWorker();
  second.SayReady();
  EXPECT_THAT(second.RunBatch(), ElementsAre(1));
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
}

TEST_F(ReplicaTest, WhatCompletedBeforeADeathCounts) {
  StartReplica();
  PlayedWorker& first = NextWorker();
  first.SayReady();
  const uint64_t place = Submit({1});
  first.RunBatch();
  first.Die();
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
}

TEST_F(ReplicaTest, ProcessThatHangsIsReplaced) {
  StartReplica();
  PlayedWorker& first = NextWorker();
  first.SayReady();
  const uint64_t place = Submit({1});
  first.WaitForBatch();
  EXPECT_TRUE(NextState().ok());
  const absl::Status death = NextState();
  EXPECT_THAT(std::string(death.message()), HasSubstr("hung"));
  PlayedWorker& second = NextWorker();
  second.SayReady();
  EXPECT_THAT(second.RunBatch(), ElementsAre(1));
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
}

TEST_F(ReplicaTest, LateAnswerOfAProcessThatHungIsLost) {
  PlayedWorker* hung = nullptr;
  on_failure_ = [&] { hung->Complete(); };
  StartReplica();
  hung = &NextWorker();
  hung->SayReady();
  const uint64_t place = Submit({1});
  hung->WaitForBatch();
  EXPECT_TRUE(NextState().ok());
  EXPECT_THAT(std::string(NextState().message()), HasSubstr("hung"));
  PlayedWorker& second = NextWorker();
  second.SayReady();
  EXPECT_THAT(second.RunBatch(), ElementsAre(1));
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
  EXPECT_TRUE(NextState().ok());
  EXPECT_GT(replica_->pid(), 0) << "The late answer was taken for one of the second process.";
}

TEST_F(ReplicaTest, StartThatFailsIsToldAndTriedAgain) {
  {
    MutexLock lock(mutex_);
    fork_errors_.push_back(absl::UnavailableError("the template has died"));
  }
  StartReplica();
  EXPECT_EQ(NextState(),
            absl::UnavailableError("the template has died; the next start is at once"));
  NextWorker().SayReady(absl::ResourceExhaustedError("the GPU is full"));
  const absl::Status full = NextState();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("the GPU is full; the next start is in "));
  NextWorker().Die();
  const absl::Status died = NextState();
  EXPECT_EQ(died.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(died.message()), HasSubstr("before it could serve"));
  NextWorker().SayReady();
  EXPECT_TRUE(NextState().ok());
}

TEST_F(ReplicaTest, ProcessThatIsNotReadyInTimeIsReplaced) {
  StartReplica(absl::Milliseconds(1));
  NextWorker();
  const absl::Status late = NextState();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("not ready within 1ms"));
}

TEST_F(ReplicaTest, EndsWhileItsProcessIsStarting) {
  const absl::Duration start_timeout = absl::Minutes(2);
  const absl::Time begin = clock_.Now();
  StartReplica(start_timeout);
  NextWorker();  // Says nothing.
  replica_.reset();
  EXPECT_LT(clock_.Now() - begin, start_timeout / 2);
}

TEST_F(ReplicaTest, EndGivesTheRunningBatchBack) {
  StartReplica();
  PlayedWorker& worker = NextWorker();
  worker.SayReady();
  const uint64_t place = Submit({1});
  worker.WaitForBatch();
  replica_.reset();
  EXPECT_EQ(book_->Find(place), nullptr);
  EXPECT_EQ(dispatcher_->gauges().idle_runners, 0);
  dispatcher_->Stop(absl::UnavailableError("unloaded"));
  EXPECT_EQ(book_->Find(place)->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(dispatcher_->gauges().free_buffers, 3);
}

TEST_F(ReplicaTest, RetiresAfterItsBatch) {
  StartReplica();
  PlayedWorker& worker = NextWorker();
  worker.SayReady();
  const uint64_t place = Submit({1});
  worker.WaitForBatch();
  EXPECT_FALSE(replica_->Retire(clock_.Now() + absl::Milliseconds(20)));
  const uint64_t next = Submit({2});
  worker.Complete();  // Nothing was computed: a batch without outputs.
  EXPECT_TRUE(replica_->Retire(absl::InfiniteFuture()));
  EXPECT_EQ(Answer(place).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(book_->Find(next), nullptr) << "It took another batch.";
  EXPECT_EQ(dispatcher_->gauges().idle_runners, 0);
  EXPECT_EQ(replica_->busy_for(), std::nullopt);
}

TEST_F(ReplicaTest, RetiresAtOnceWhereItIsIdleOrStarting) {
  for (const bool idle : {true, false}) {
    StartReplica();
    PlayedWorker& worker = NextWorker();
    if (idle) {
      worker.SayReady();
      EXPECT_TRUE(NextState().ok());
    }
    EXPECT_TRUE(replica_->Retire(absl::InfiniteFuture()));
    EXPECT_EQ(replica_->pid(), 0);
    EXPECT_EQ(dispatcher_->gauges().idle_runners, 0);
    replica_.reset();
  }
}

TEST_F(ReplicaTest, BatchOfOneThatDiesWhileItRetiresIsGivenBack) {
  StartReplica();
  PlayedWorker& first = NextWorker();
  first.SayReady();
  const uint64_t place = Submit({1});
  first.WaitForBatch();
  EXPECT_FALSE(replica_->Retire(clock_.Now()));
  first.Die();
  EXPECT_TRUE(replica_->Retire(absl::InfiniteFuture()));
  StartReplica();
  PlayedWorker& second = NextWorker();
  second.SayReady();
  EXPECT_THAT(second.RunBatch(), ElementsAre(1));
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
}

TEST_F(ReplicaTest, ProcessThatCompletesWhatItNeverGotIsReplaced) {
  StartReplica();
  PlayedWorker& confused = NextWorker();
  confused.SayReady();
  EXPECT_TRUE(NextState().ok());
  confused.Complete();
  EXPECT_EQ(NextState().code(), absl::StatusCode::kUnavailable);
  PlayedWorker& next = NextWorker();
  next.SayReady();
  const uint64_t place = Submit({1});
  EXPECT_THAT(next.RunBatch(), ElementsAre(1));
  EXPECT_THAT(OutputOf(place), ElementsAre(3));
}

// A batch is handed over at the very moment when the process dies: it runs in the next process,
// once, and that one gets nothing that was meant for the dead one.
TEST_F(ReplicaTest, DeathThatRacesWithABatchLosesNothing) {
  for (int round = 0; round < 20; ++round) {
    StartReplica();
    PlayedWorker& first = NextWorker();
    first.SayReady();
    EXPECT_TRUE(NextState().ok());
    uint64_t place = 0;
    {
      const Thread killer("killer", [&] { first.Die(); });
      place = Submit({round});
    }
    PlayedWorker& second = NextWorker();
    second.SayReady();
    EXPECT_THAT(second.RunBatch(), ElementsAre(round));
    EXPECT_THAT(OutputOf(place), ElementsAre(Echo(round)));
    EXPECT_EQ(NextState().code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE(NextState().ok());
    replica_.reset();
    EXPECT_EQ(dispatcher_->gauges().free_buffers, 3);
  }
}

}  // namespace
}  // namespace millrace
