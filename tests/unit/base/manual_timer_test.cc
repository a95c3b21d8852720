// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/fakes/manual_timer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "tests/fakes/virtual_clock.h"

namespace millrace {
namespace {

using testing::ElementsAre;

constexpr absl::Duration kSecond = absl::Seconds(1);

class ManualTimerTest : public testing::Test {
 protected:
  // Schedules a callback that notes `number` when it runs.
  Timer::Id Note(absl::Duration after, int number) {
    return timer_.Schedule(clock_.Now() + after, [this, number] { ran_.push_back(number); });
  }
  int RunAfter(absl::Duration duration) {
    clock_.Advance(duration);
    return timer_.RunDue(clock_.Now());
  }

  VirtualClock clock_;
  ManualTimer timer_;
  std::vector<int> ran_;
};

TEST_F(ManualTimerTest, RunsACallbackOnceAndNotBeforeItsTime) {
  Note(kSecond, 1);
  EXPECT_EQ(RunAfter(kSecond - absl::Nanoseconds(1)), 0);
  EXPECT_THAT(ran_, ElementsAre());
  EXPECT_EQ(RunAfter(absl::Nanoseconds(1)), 1);
  EXPECT_EQ(RunAfter(kSecond), 0);
  EXPECT_THAT(ran_, ElementsAre(1));
}

TEST_F(ManualTimerTest, RunsInTheOrderOfTimeThenOfScheduling) {
  Note(2 * kSecond, 1);
  Note(kSecond, 2);
  Note(2 * kSecond, 3);
  RunAfter(2 * kSecond);
  EXPECT_THAT(ran_, ElementsAre(2, 1, 3));
}

TEST_F(ManualTimerTest, NextTimeIsThatOfTheEarliestCallbackLeft) {
  EXPECT_EQ(timer_.NextTime(), absl::InfiniteFuture());
  Note(2 * kSecond, 1);
  const Timer::Id first = Note(kSecond, 2);
  EXPECT_EQ(timer_.NextTime(), clock_.Now() + kSecond);
  timer_.Forget(first);
  EXPECT_EQ(timer_.NextTime(), clock_.Now() + 2 * kSecond);
}

TEST_F(ManualTimerTest, ForgottenAndCancelledCallbacksNeverRun) {
  timer_.Forget(Note(kSecond, 1));
  timer_.Cancel(Note(kSecond, 2));
  Note(kSecond, 3);
  RunAfter(kSecond);
  EXPECT_THAT(ran_, ElementsAre(3));
}

TEST_F(ManualTimerTest, CallbackMayScheduleMoreAndWhatIsDueRunsAtOnce) {
  Timer::Id self;
  self = timer_.Schedule(clock_.Now() + kSecond, [&] {
    timer_.Cancel(self);
    Note(absl::ZeroDuration(), 1);
    Note(kSecond, 2);
  });
  EXPECT_EQ(RunAfter(kSecond), 2);
  EXPECT_THAT(ran_, ElementsAre(1));
  RunAfter(kSecond);
  EXPECT_THAT(ran_, ElementsAre(1, 2));
}

// What a callback has captured may use the timer when it is destroyed.
class ForgetsAtItsEnd {
 public:
  ForgetsAtItsEnd(Timer& timer, const Timer::Id& other) : timer_(timer), other_(other) {}
  ~ForgetsAtItsEnd() { timer_.Forget(other_); }

 private:
  Timer& timer_;
  const Timer::Id other_;
};

TEST_F(ManualTimerTest, CapturesMayUseTheTimerWhenTheyAreDestroyed) {
  const Timer::Id other = Note(kSecond, 1);
  timer_.Forget(
      timer_.Schedule(clock_.Now(), [owned = std::make_unique<ForgetsAtItsEnd>(timer_, other)] {}));
  RunAfter(kSecond);
  EXPECT_THAT(ran_, ElementsAre());
}

TEST(ManualTimerDeathTest, CallbacksWithoutEndAreToldNotWaitedFor) {
  ManualTimer timer;
  std::function<void()> again = [&] { timer.Schedule(absl::UnixEpoch(), [&] { again(); }); };
  again();
  EXPECT_DEATH(timer.RunDue(absl::UnixEpoch()), "schedule each other");
}

TEST(VirtualClockDeathTest, MovesWhenItIsToldToAndNeverBack) {
  VirtualClock clock;
  const absl::Time begin = clock.Now();
  clock.Advance(kSecond);
  EXPECT_EQ(clock.Now(), begin + kSecond);
  EXPECT_DEATH(clock.AdvanceTo(begin), "backwards");
}

}  // namespace
}  // namespace millrace
