// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/clock.h"

#include <gtest/gtest.h>

#include <atomic>

#include "server/base/thread.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

constexpr absl::Duration kSecond = absl::Seconds(1);

TEST(RealClock, NeverGoesBack) {
  Clock& clock = Clock::Real();
  absl::Time before = clock.Now();
  for (int i = 0; i < 1000; ++i) {
    const absl::Time now = clock.Now();
    ASSERT_GE(now, before);
    before = now;
  }
}

TEST(RealClock, SleepsAtLeastAsLongAsAsked) {
  const absl::Time start = Clock::Real().Now();
  Clock::Real().SleepFor(absl::Microseconds(200));
  EXPECT_GE(Clock::Real().Now() - start, absl::Microseconds(200));
}

TEST(RealClock, WaitForAPastDeadlineReturns) {
  Mutex mutex;
  CondVar never_notified;
  MutexLock lock(mutex);
  Clock::Real().WaitUntil(never_notified, mutex, Clock::Real().Now() - kSecond);
  Clock::Real().WaitUntil(never_notified, mutex, absl::InfinitePast());
}

// A thread that waits with a clock for a flag or a deadline.
class ClockWaiter {
 public:
  ClockWaiter(Clock& clock, absl::Time deadline)
      : clock_(clock), deadline_(deadline), thread_("waiter", [this] { Run(); }) {}

  ~ClockWaiter() { Raise(); }

  void Raise() {
    MutexLock lock(mutex_);
    raised_ = true;
    condition_.NotifyAll();
  }

  // Waits for the thread's end and returns whether it saw the flag.
  bool Finish() {
    MutexLock lock(mutex_);
    while (!finished_) condition_.Wait(mutex_);
    return saw_flag_;
  }

 private:
  void Run() {
    MutexLock lock(mutex_);
    while (!raised_ && clock_.Now() < deadline_) {
      clock_.WaitUntil(condition_, mutex_, deadline_);
    }
    saw_flag_ = raised_;
    finished_ = true;
    condition_.NotifyAll();
  }

  Clock& clock_;
  const absl::Time deadline_;
  Mutex mutex_;
  CondVar condition_;
  bool raised_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool saw_flag_ ABSL_GUARDED_BY(mutex_) = false;
  Thread thread_;
};

TEST(RealClock, NotificationEndsAWaitWithoutDeadline) {
  ClockWaiter waiter(Clock::Real(), absl::InfiniteFuture());
  waiter.Raise();
  EXPECT_TRUE(waiter.Finish());
}

TEST(FakeClock, StandsStillUntilItIsAdvanced) {
  FakeClock clock(absl::UnixEpoch());
  EXPECT_EQ(clock.Now(), absl::UnixEpoch());
  EXPECT_EQ(clock.Now(), absl::UnixEpoch());
  clock.Advance(kSecond);
  EXPECT_EQ(clock.Now(), absl::UnixEpoch() + kSecond);
}

TEST(FakeClock, WaitForAPastDeadlineReturns) {
  FakeClock clock;
  Mutex mutex;
  CondVar never_notified;
  MutexLock lock(mutex);
  clock.WaitUntil(never_notified, mutex, absl::UnixEpoch());
}

TEST(FakeClock, DeadlineEndsAWait) {
  FakeClock clock;
  ClockWaiter waiter(clock, clock.Now() + kSecond);
  clock.WaitUntilBlocked(1);
  clock.Advance(kSecond);
  EXPECT_FALSE(waiter.Finish());
}

TEST(FakeClock, NotificationEndsAWait) {
  FakeClock clock;
  ClockWaiter waiter(clock, clock.Now() + kSecond);
  clock.WaitUntilBlocked(1);
  waiter.Raise();
  EXPECT_TRUE(waiter.Finish());
}

TEST(FakeClock, WaitsWithoutDeadlineCountAsBlocked) {
  FakeClock clock;
  ClockWaiter with_deadline(clock, clock.Now() + kSecond);
  ClockWaiter without(clock, absl::InfiniteFuture());
  clock.WaitUntilBlocked(2);
  clock.Advance(100 * kSecond);
  EXPECT_FALSE(with_deadline.Finish());
  without.Raise();
  EXPECT_TRUE(without.Finish());
}

TEST(FakeClock, WokenThreadCountsAsBlockedOnceItWaitsAgain) {
  FakeClock clock;
  int rounds = 0;
  {
    Thread sleeper("sleeper", [&] {
      for (int i = 0; i < 100; ++i) {
        clock.SleepFor(kSecond);
        ++rounds;  // Ordered by the clock's own locks: the test reads it while we are blocked.
      }
    });
    for (int i = 0; i < 100; ++i) {
      clock.WaitUntilBlocked(1);
      ASSERT_EQ(rounds, i);
      clock.Advance(kSecond);
    }
  }
  EXPECT_EQ(rounds, 100);
}

// Sleepers own the mutex they wait with, and destroy it as soon as they wake.
TEST(FakeClock, ManySleepersWakeWhileOthersAdvance) {
  FakeClock clock;
  std::atomic<int> asleep = 8;
  const auto sleep = [&] {
    for (int i = 0; i < 200; ++i) clock.SleepFor(absl::Milliseconds(1 + i % 3));
    --asleep;
  };
  Thread a("a", sleep), b("b", sleep), c("c", sleep), d("d", sleep);
  Thread e("e", sleep), f("f", sleep), g("g", sleep), h("h", sleep);
  const auto advance = [&] {
    while (asleep > 0) clock.Advance(absl::Milliseconds(1));
  };
  Thread first("first", advance), second("second", advance);
}

}  // namespace
}  // namespace millrace
