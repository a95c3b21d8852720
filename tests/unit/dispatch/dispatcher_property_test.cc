// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whatever happens in whatever order: every request gets exactly one right answer, in the order of
// its stream, and at the end nothing is left over. One thread and virtual time, hence repeatable.

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "server/base/timer_thread.h"
#include "tests/fakes/checked_stream.h"
#include "tests/fakes/echo_pool.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/seed.h"

namespace millrace {
namespace {

class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed), slots_(static_cast<int>(Pick(1, 3))), leases_(slots_) {
    for (int64_t i = Pick(1, 3); i > 0; --i) AddPool();
    for (int64_t i = Pick(1, 4); i > 0; --i) streams_.emplace_back(clock_);
  }

  void Run() {
    for (int64_t step = Pick(5, 80); step > 0; --step) {
      Step();
      CheckNow();
      if (testing::Test::HasFailure()) return;
    }
    Drain();
  }

 private:
  int64_t Pick(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(random_);
  }
  bool Chance(int percent) { return Pick(1, 100) <= percent; }

  void AddPool() {
    constexpr int64_t kBatchSizes[] = {0, 1, 2, 4, 8};
    const int64_t runners = Pick(1, 4);
    EchoPool::Options options;
    options.max_batch_size = kBatchSizes[Pick(0, 4)];
    options.buffers = static_cast<size_t>(runners + Pick(1, 3));
    options.dispatch.max_queue_rows = Pick(1, 12);
    if (Chance(40)) options.dispatch.policy.max_queue_delay = absl::Milliseconds(Pick(1, 5));
    if (Chance(50)) options.dispatch.policy.preferred_sizes = {Pick(1, 4)};
    delays_.push_back(options.dispatch.policy.max_queue_delay);
    buffers_.push_back(options.buffers);
    EchoPool& pool = pools_.emplace_back(std::move(options), clock_, timer_, leases_);
    const auto cores = static_cast<int>(Pick(0, slots_));
    for (int64_t i = 0; i < runners; ++i) pool.AddRunner(Chance(90) ? cores : 0);
  }

  void Step() {
    const int64_t what = Pick(1, 100);
    if (what <= 55) {
      Submit();
    } else if (what <= 85) {
      if (HandDrivenRunner* const runner = AnyBusyRunner()) runner->Complete();
    } else if (what <= 88) {
      if (HandDrivenRunner* const runner = AnyBusyRunner()) {
        dead_.insert(runner);
        runner->Die();
      }
    } else if (what <= 91) {
      ReviveAll();
    } else if (what <= 93) {
      CheckedStream& stream = AnyOf(streams_);
      stream.Cancel(pools_);
      streams_.emplace_back(clock_);
    } else {
      Advance(absl::Milliseconds(Pick(0, 3)));
    }
  }

  void Submit() {
    CheckedStream& stream = AnyOf(streams_);
    if (stream.parked()) return;
    EchoPool& pool = AnyOf(pools_);
    const int64_t rows = pool.signature().batched() ? (Chance(80) ? 1 : Pick(2, 12)) : 1;
    CheckedStream::Asked asked = {.may_be_rejected = Chance(30), .may_lose_replicas = true};
    asked.values.resize(static_cast<size_t>(rows * Pick(1, 3)));
    for (int32_t& value : asked.values) value = next_value_++;
    if (Chance(5)) asked.values[asked.values.size() / 2] = kCulprit;
    if (Chance(30)) asked.deadline = clock_.Now() + absl::Milliseconds(Pick(0, 6));
    stream.Ask(pool, std::move(asked), rows);
  }

  HandDrivenRunner* AnyBusyRunner() {
    std::vector<HandDrivenRunner*> busy;
    for (EchoPool& pool : pools_) {
      for (HandDrivenRunner& runner : pool.runners()) {
        if (runner.busy()) busy.push_back(&runner);
      }
    }
    return busy.empty() ? nullptr : busy[static_cast<size_t>(Pick(0, busy.size() - 1))];
  }

  template <typename T>
  T& AnyOf(std::deque<T>& all) {
    return all[static_cast<size_t>(Pick(0, static_cast<int64_t>(all.size()) - 1))];
  }

  void ReviveAll() {
    const auto dead = std::exchange(dead_, {});
    for (EchoPool& pool : pools_) {
      for (HandDrivenRunner& runner : pool.runners()) {
        if (dead.count(&runner) > 0) pool.dispatcher().AddRunner(&runner);
      }
    }
  }

  void Advance(absl::Duration duration) {
    clock_.Advance(duration);
    clock_.WaitUntilBlocked(1);
  }

  void CheckNow() {
    int cores = 0;
    bool anything_runs = false;
    for (EchoPool& pool : pools_) {
      for (HandDrivenRunner& runner : pool.runners()) {
        cores += runner.busy() ? runner.lease_cores() : 0;
        anything_runs |= runner.busy();
      }
    }
    EXPECT_LE(cores, slots_);
    for (size_t i = 0; i < pools_.size(); ++i) CheckNobodyWaitsInVain(i, anything_runs);
  }

  // A free replica never waits while a batch may go.
  void CheckNobodyWaitsInVain(size_t index, bool anything_runs) {
    EchoPool& pool = pools_[index];
    size_t busy = 0;
    bool idle_without_lease = false;
    bool idle = false;
    for (HandDrivenRunner& runner : pool.runners()) {
      if (runner.busy()) ++busy;
      if (runner.busy() || dead_.count(&runner) > 0) continue;
      idle = true;
      idle_without_lease |= runner.lease_cores() == 0;
    }
    const Dispatcher::Gauges gauges = pool.dispatcher().gauges();
    if (delays_[index] > absl::ZeroDuration()) return;
    if (!idle_without_lease && (anything_runs || !idle)) return;
    EXPECT_EQ(gauges.queued_rows, 0);
    EXPECT_EQ(gauges.free_buffers + busy, buffers_[index]);
  }

  // Lets everything end. Nothing but completions and the time may be needed for that.
  void Drain() {
    ReviveAll();
    for (int round = 0; round < 10000; ++round) {
      if (HandDrivenRunner* const runner = AnyBusyRunner()) {
        runner->Complete();
        continue;
      }
      Advance(absl::Milliseconds(6));
      if (AnyBusyRunner() == nullptr) break;
    }
    for (EchoPool& pool : pools_) EXPECT_TRUE(pool.Quiet());
    for (CheckedStream& stream : streams_) EXPECT_TRUE(stream.Settled());
  }

  std::mt19937_64 random_;
  FakeClock clock_;
  TimerThread timer_{clock_};
  const int slots_;
  CoreLeases leases_;
  std::deque<CheckedStream> streams_;
  std::deque<EchoPool> pools_;
  std::vector<absl::Duration> delays_;
  std::vector<size_t> buffers_;
  std::set<HandDrivenRunner*> dead_;
  int32_t next_value_ = 0;
};

TEST(DispatcherProperty, EveryRequestHasOneRightAnswerInItsPlaceAndNothingIsLeftOver) {
  const uint64_t seed = TestSeed();
  const absl::Time enough = Clock::Real().Now() + absl::Seconds(10);  // For slow builds.
  for (uint64_t i = 0; i < 1500 && Clock::Real().Now() < enough; ++i) {
    SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed + i);
    Simulation(seed + i).Run();
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

}  // namespace
}  // namespace millrace
