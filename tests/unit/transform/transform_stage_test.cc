// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/transform_stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <set>
#include <thread>

#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

// Pieces of work that are counted, and may be held up.
class FakeSource final : public PreparationSource {
 public:
  absl::AnyInvocable<void()> NextPreparation() override {
    MutexLock lock(mutex_);
    if (left_ == 0) return {};
    --left_;
    return [this] {
      MutexLock inner(mutex_);
      most_ = std::max(most_, ++running_);
      cpus_.insert(sched_getcpu());
      CPU_ZERO(&mask_);
      sched_getaffinity(0, sizeof(mask_), &mask_);
      changed_.NotifyAll();
      while (held_) changed_.Wait(mutex_);
      --running_;
      ++done_;
      changed_.NotifyAll();
    };
  }

  void Add(int count) {
    MutexLock lock(mutex_);
    left_ += count;
  }
  void Hold(bool held) {
    MutexLock lock(mutex_);
    held_ = held;
    changed_.NotifyAll();
  }
  void WaitUntilRunning(int count) {
    MutexLock lock(mutex_);
    while (running_ < count) changed_.Wait(mutex_);
  }
  void WaitUntilDone(int count) {
    MutexLock lock(mutex_);
    while (done_ < count) changed_.Wait(mutex_);
  }
  int done() const {
    MutexLock lock(mutex_);
    return done_;
  }
  // How many were running at a time, at most, and where.
  int most() const {
    MutexLock lock(mutex_);
    return most_;
  }
  std::set<int> cpus() const {
    MutexLock lock(mutex_);
    return cpus_;
  }
  // On how many the last one might run.
  int width() const {
    MutexLock lock(mutex_);
    return CPU_COUNT(&mask_);
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  int left_ = 0;
  bool held_ = false;
  int running_ = 0;
  int done_ = 0;
  int most_ = 0;
  std::set<int> cpus_;
  cpu_set_t mask_ = {};
};

TEST(TransformStage, RunsAllThatWaitsOfEverySource) {
  const auto first = std::make_shared<FakeSource>();
  const auto second = std::make_shared<FakeSource>();
  TransformStage stage(3, Clock::Real());
  first->Add(100);
  stage.WorkWaits(first);
  second->Add(50);
  stage.WorkWaits(second);
  first->WaitUntilDone(100);
  second->WaitUntilDone(50);
  first->Add(1);  // Also what comes after it was idle.
  stage.WorkWaits(first);
  first->WaitUntilDone(101);
}

TEST(TransformStage, OneSourceKeepsAllWorkersBusy) {
  const auto source = std::make_shared<FakeSource>();
  TransformStage stage(4, Clock::Real());
  source->Hold(true);
  source->Add(9);
  stage.WorkWaits(source);
  source->WaitUntilRunning(4);
  source->Hold(false);
  source->WaitUntilDone(9);
}

TEST(TransformStage, WorkersAreAddedWhereMoreMayWork) {
  const auto source = std::make_shared<FakeSource>();
  TransformStage stage(1, Clock::Real());
  source->Hold(true);
  source->Add(5);
  stage.WorkWaits(source);
  source->WaitUntilRunning(1);
  stage.Limit(3, {});
  source->WaitUntilRunning(3);
  EXPECT_EQ(stage.workers(), 3);
  stage.Limit(1, {});
  source->Hold(false);
  source->WaitUntilDone(5);
  EXPECT_EQ(stage.workers(), 3) << "They wait for better times.";
  EXPECT_EQ(stage.limit(), 1);
}

TEST(TransformStage, SourceThatIsHeldUpLeavesOthersTheirTurn) {
  const auto slow = std::make_shared<FakeSource>();
  const auto quick = std::make_shared<FakeSource>();
  TransformStage stage(2, Clock::Real());
  slow->Hold(true);
  slow->Add(1);
  stage.WorkWaits(slow);
  slow->WaitUntilRunning(1);
  quick->Add(20);
  stage.WorkWaits(quick);
  quick->WaitUntilDone(20);
  slow->Hold(false);
}

TEST(TransformStage, NoMoreWorkersWorkThanMay) {
  const auto source = std::make_shared<FakeSource>();
  TransformStage stage(3, Clock::Real());
  stage.Limit(1, {});
  EXPECT_EQ(stage.limit(), 1);
  source->Hold(true);
  source->Add(100);
  stage.WorkWaits(source);
  source->WaitUntilRunning(1);
  source->Hold(false);
  source->WaitUntilDone(100);
  EXPECT_EQ(source->most(), 1);

  source->Hold(true);
  source->Add(100);
  stage.WorkWaits(source);
  source->WaitUntilRunning(1);
  stage.Limit(2, {});  // Also while they work.
  source->WaitUntilRunning(2);
  source->Hold(false);
  source->WaitUntilDone(200);
  EXPECT_EQ(source->most(), 2);
}

TEST(TransformStage, WorkersRunWhereTheyArePinned) {
  const int cpu = sched_getcpu();
  const auto source = std::make_shared<FakeSource>();
  TransformStage stage(2, Clock::Real());
  stage.Limit(2, {cpu});
  source->Add(20);
  stage.WorkWaits(source);
  source->WaitUntilDone(20);
  EXPECT_THAT(source->cpus(), testing::ElementsAre(cpu));
  EXPECT_EQ(source->width(), 1);
  stage.Limit(2, {});
  source->Add(1);
  stage.WorkWaits(source);
  source->WaitUntilDone(21);
  EXPECT_EQ(source->width(), CpusOf(getpid()).size()) << "They float again.";
}

TEST(TransformStage, TellsHowLongItsWorkersWorked) {
  FakeClock clock;
  const auto source = std::make_shared<FakeSource>();
  TransformStage stage(2, clock);
  source->Hold(true);
  source->Add(2);
  stage.WorkWaits(source);
  source->WaitUntilRunning(2);
  clock.Advance(absl::Seconds(3));
  source->Hold(false);
  while (stage.busy() < absl::Seconds(6)) std::this_thread::yield();
  EXPECT_EQ(stage.busy(), absl::Seconds(6));
}

TEST(TransformStage, EndsAfterWhatIsRunningAndLeavesTheRest) {
  const auto source = std::make_shared<FakeSource>();
  auto stage = std::make_unique<TransformStage>(1, Clock::Real());
  source->Hold(true);
  source->Add(1000);
  stage->WorkWaits(source);
  source->WaitUntilRunning(1);
  {
    const Thread releases("releases", [&] { source->Hold(false); });
    stage.reset();
  }
  EXPECT_GE(source->done(), 1);
  EXPECT_EQ(source.use_count(), 1) << "Nothing of it is kept.";
}

}  // namespace
}  // namespace millrace
