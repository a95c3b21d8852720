// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/transform_stage.h"

#include <gtest/gtest.h>

#include <memory>

#include "server/base/mutex.h"
#include "server/base/thread.h"

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
      ++running_;
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

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  int left_ = 0;
  bool held_ = false;
  int running_ = 0;
  int done_ = 0;
};

TEST(TransformStage, RunsAllThatWaitsOfEverySource) {
  const auto first = std::make_shared<FakeSource>();
  const auto second = std::make_shared<FakeSource>();
  TransformStage stage({.workers = 3, .cpus = {}});
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
  TransformStage stage({.workers = 4, .cpus = {}});
  source->Hold(true);
  source->Add(9);
  stage.WorkWaits(source);
  source->WaitUntilRunning(4);
  source->Hold(false);
  source->WaitUntilDone(9);
}

TEST(TransformStage, SourceThatIsHeldUpLeavesOthersTheirTurn) {
  const auto slow = std::make_shared<FakeSource>();
  const auto quick = std::make_shared<FakeSource>();
  TransformStage stage({.workers = 2, .cpus = {}});
  slow->Hold(true);
  slow->Add(1);
  stage.WorkWaits(slow);
  slow->WaitUntilRunning(1);
  quick->Add(20);
  stage.WorkWaits(quick);
  quick->WaitUntilDone(20);
  slow->Hold(false);
}

TEST(TransformStage, EndsAfterWhatIsRunningAndLeavesTheRest) {
  const auto source = std::make_shared<FakeSource>();
  auto stage = std::make_unique<TransformStage>(TransformStage::Options{.workers = 1, .cpus = {}});
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
