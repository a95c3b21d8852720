// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/timer_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

using testing::ElementsAre;

constexpr absl::Duration kSecond = absl::Seconds(1);

// The timer's thread waits with the clock whenever it has nothing to run. So after AdvanceAndRun()
// whatever was due has run.
class TimerThreadTest : public testing::Test {
 protected:
  void AdvanceAndRun(absl::Duration duration) {
    clock_.Advance(duration);
    clock_.WaitUntilBlocked(1);
  }

  // Schedules a callback that notes `number` when it runs.
  Timer::Id Note(absl::Duration after, int number) {
    return timer_.Schedule(clock_.Now() + after, [this, number] { ran_.push_back(number); });
  }

  FakeClock clock_;
  std::vector<int> ran_;  // Written by the timer's thread, read while it is blocked.
  TimerThread timer_{clock_};
};

TEST_F(TimerThreadTest, RunsACallbackOnceAndNotBeforeItsTime) {
  Note(kSecond, 1);
  AdvanceAndRun(kSecond - absl::Nanoseconds(1));
  EXPECT_THAT(ran_, ElementsAre());
  AdvanceAndRun(absl::Nanoseconds(1));
  EXPECT_THAT(ran_, ElementsAre(1));
  AdvanceAndRun(kSecond);
  EXPECT_THAT(ran_, ElementsAre(1));
}

TEST_F(TimerThreadTest, RunsInTheOrderOfTimeThenOfScheduling) {
  Note(2 * kSecond, 1);
  Note(kSecond, 2);
  Note(2 * kSecond, 3);
  AdvanceAndRun(kSecond);
  EXPECT_THAT(ran_, ElementsAre(2));
  AdvanceAndRun(kSecond);
  EXPECT_THAT(ran_, ElementsAre(2, 1, 3));
}

TEST_F(TimerThreadTest, PastTimeRunsAtOnce) {
  std::promise<void> ran;
  timer_.Schedule(clock_.Now() - kSecond, [&] { ran.set_value(); });
  ran.get_future().wait();
}

TEST_F(TimerThreadTest, CancelledCallbackNeverRuns) {
  const Timer::Id first = Note(kSecond, 1);
  Note(kSecond, 2);
  timer_.Cancel(first);
  timer_.Cancel(first);
  AdvanceAndRun(kSecond);
  EXPECT_THAT(ran_, ElementsAre(2));
}

TEST_F(TimerThreadTest, CancelAfterTheRunDoesNothing) {
  const Timer::Id id = Note(kSecond, 1);
  AdvanceAndRun(kSecond);
  timer_.Cancel(id);
  EXPECT_THAT(ran_, ElementsAre(1));
}

TEST_F(TimerThreadTest, CancelWaitsForTheRunningCallback) {
  std::promise<void> started;
  std::promise<void> may_end;
  std::atomic<bool> ended = false;
  const Timer::Id id = timer_.Schedule(clock_.Now(), [&] {
    started.set_value();
    may_end.get_future().wait();
    ended = true;
  });
  started.get_future().wait();
  bool ended_before_cancel_returned = false;
  {
    Thread canceller("canceller", [&] {
      timer_.Cancel(id);
      ended_before_cancel_returned = ended;
    });
    may_end.set_value();
  }
  EXPECT_TRUE(ended_before_cancel_returned);
}

TEST_F(TimerThreadTest, ForgottenCallbackNeverRunsAndARunningOneIsNotWaitedFor) {
  timer_.Forget(Note(kSecond, 1));
  std::promise<void> running;
  std::promise<void> may_end;
  const Timer::Id id = timer_.Schedule(clock_.Now() + kSecond, [&] {
    running.set_value();
    may_end.get_future().wait();
  });
  clock_.Advance(kSecond);
  running.get_future().wait();
  timer_.Forget(id);  // Returns, though the callback still runs.
  may_end.set_value();
  clock_.WaitUntilBlocked(1);
  EXPECT_THAT(ran_, ElementsAre());
}

TEST_F(TimerThreadTest, CallbackMayScheduleAndCancelAlsoItself) {
  Timer::Id self;
  self = timer_.Schedule(clock_.Now() + kSecond, [&] {
    timer_.Cancel(self);
    Note(kSecond, 1);
  });
  AdvanceAndRun(kSecond);
  EXPECT_THAT(ran_, ElementsAre());
  AdvanceAndRun(kSecond);
  EXPECT_THAT(ran_, ElementsAre(1));
}

// What a callback has captured may use the timer when it is destroyed.
class CancelsAtItsEnd {
 public:
  CancelsAtItsEnd(Timer& timer, const Timer::Id& other) : timer_(timer), other_(other) {}
  ~CancelsAtItsEnd() { timer_.Cancel(other_); }

 private:
  Timer& timer_;
  const Timer::Id other_;
};

TEST_F(TimerThreadTest, CapturesAreDestroyedWithoutTheLock) {
  const Timer::Id other = Note(kSecond, 1);
  const Timer::Id id = timer_.Schedule(
      clock_.Now() + kSecond, [owned = std::make_unique<CancelsAtItsEnd>(timer_, other)] {});
  timer_.Cancel(id);
  AdvanceAndRun(kSecond);
  EXPECT_THAT(ran_, ElementsAre());
}

TEST(TimerThread, ForgetsWhatIsScheduledWhenItEnds) {
  FakeClock clock;
  bool ran = false;
  {
    TimerThread timer(clock);
    timer.Schedule(clock.Now() + kSecond, [&] { ran = true; });
  }
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace millrace
