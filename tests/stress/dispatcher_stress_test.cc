// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// The dispatcher's promises with real threads and real time: streams, replicas that fail and die,
// cancels, deadlines, parking, several models on shared cores, and a stop in the middle.

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "server/base/thread.h"
#include "server/base/timer_thread.h"
#include "tests/fakes/checked_stream.h"
#include "tests/fakes/echo_pool.h"
#include "tests/fakes/seed.h"

namespace millrace {
namespace {

constexpr absl::Duration kStuck = absl::Seconds(60);
constexpr size_t kWindow = 16;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t Pick(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(engine_);
  }
  bool Chance(int percent) { return Pick(1, 100) <= percent; }

 private:
  std::mt19937_64 engine_;
};

class Storm {
 public:
  Storm(uint64_t seed, bool with_stop)
      : seed_(seed),
        with_stop_(with_stop),
        random_(seed),
        leases_(static_cast<int>(random_.Pick(1, 3))) {
    for (int64_t i = random_.Pick(1, 3); i > 0; --i) AddPool();
    for (int i = 0; i < 3; ++i) streams_.emplace_back(clock_);
    for (int i = 0; i < 2; ++i) short_streams_.emplace_back(clock_);
  }

  void Run(int requests) {
    std::deque<Thread> replicas;
    for (EchoPool& pool : pools_) {
      for (HandDrivenRunner& runner : pool.runners()) {
        replicas.emplace_back("replica", [this, &pool, &runner] { RunReplica(pool, runner); });
      }
    }
    {
      std::deque<Thread> clients;
      for (CheckedStream& stream : streams_) {
        clients.emplace_back("client", [this, &stream, requests] { Send(stream, requests); });
      }
      for (CheckedStream& stream : short_streams_) {
        clients.emplace_back("gone", [this, &stream, requests] {
          Send(stream, requests / 2);
          stream.Cancel(pools_);
        });
      }
      if (with_stop_) {
        clients.emplace_back("stop", [this, requests] {
          streams_.front().WaitForRoom(1, clock_.Now() + absl::Milliseconds(requests / 20));
          pools_.back().dispatcher().Stop(absl::UnavailableError("stopped"));
        });
      }
    }
    const absl::Time deadline = clock_.Now() + kStuck;
    for (CheckedStream& stream : streams_) EXPECT_TRUE(stream.WaitForRoom(1, deadline));
    for (CheckedStream& stream : short_streams_) EXPECT_TRUE(stream.WaitForRoom(1, deadline));
    for (EchoPool& pool : pools_) {
      for (HandDrivenRunner& runner : pool.runners()) runner.Stop();
    }
    replicas.clear();
    for (EchoPool& pool : pools_) EXPECT_TRUE(pool.Quiet());
  }

 private:
  void AddPool() {
    constexpr int64_t kBatchSizes[] = {0, 1, 2, 8};
    const int64_t runners = random_.Pick(1, 3);
    EchoPool::Options options;
    options.max_batch_size = kBatchSizes[random_.Pick(0, 3)];
    options.buffers = static_cast<size_t>(runners + random_.Pick(1, 2));
    options.dispatch.max_queue_rows = random_.Pick(1, 16);
    if (random_.Chance(40)) {
      options.dispatch.policy.max_queue_delay = absl::Microseconds(random_.Pick(50, 500));
    }
    EchoPool& pool = pools_.emplace_back(std::move(options), clock_, timer_, leases_);
    const auto cores = static_cast<int>(random_.Pick(0, leases_.slots()));
    for (int64_t i = 0; i < runners; ++i) pool.AddRunner(cores);
  }

  void RunReplica(EchoPool& pool, HandDrivenRunner& runner) {
    Random random(seed_ + reinterpret_cast<uintptr_t>(&runner));
    while (runner.WaitForBatch()) {
      if (random.Chance(5)) {
        runner.Die();
        pool.dispatcher().AddRunner(&runner);
      } else {
        runner.Complete();
      }
    }
  }

  void Send(CheckedStream& stream, int requests) {
    Random random(seed_ + reinterpret_cast<uintptr_t>(&stream));
    int32_t value = 0;
    for (int i = 0; i < requests; ++i) {
      if (!stream.WaitForRoom(kWindow, clock_.Now() + kStuck)) {
        ADD_FAILURE() << "A stream is stuck.";
        return;
      }
      EchoPool& pool =
          pools_[static_cast<size_t>(random.Pick(0, static_cast<int64_t>(pools_.size()) - 1))];
      const int64_t rows = pool.signature().batched() && random.Chance(20) ? random.Pick(2, 12) : 1;
      CheckedStream::Asked asked = {.may_be_rejected = random.Chance(20),
                                    .may_lose_replicas = true,
                                    .may_be_stopped = with_stop_};
      asked.values.resize(static_cast<size_t>(rows * random.Pick(1, 2)));
      for (int32_t& each : asked.values) each = value++;
      if (random.Chance(3)) asked.values.back() = kCulprit;
      if (random.Chance(20)) {
        asked.deadline = clock_.Now() + absl::Microseconds(random.Pick(0, 2000));
      }
      stream.Ask(pool, std::move(asked), rows);
    }
  }

  const uint64_t seed_;
  const bool with_stop_;
  Random random_;
  Clock& clock_ = Clock::Real();
  TimerThread timer_{clock_};
  CoreLeases leases_;
  std::deque<CheckedStream> streams_;
  std::deque<CheckedStream> short_streams_;  // Cancelled in the middle.
  std::deque<EchoPool> pools_;
};

TEST(DispatcherStress, EveryRequestHasOneRightAnswerInItsPlaceAndNothingIsLeftOver) {
  const uint64_t seed = TestSeed();
  const absl::Time enough = Clock::Real().Now() + absl::Seconds(8);
  for (uint64_t i = 0; i < 40 && Clock::Real().Now() < enough; ++i) {
    SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed + i);
    Storm(seed + i, /*with_stop=*/i % 3 == 2).Run(1000);
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

}  // namespace
}  // namespace millrace
