// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/busy_window.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "server/base/thread.h"

namespace millrace {
namespace {

absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

TEST(BusyWindow, BeginsFourteenWholeSecondsBack) {
  EXPECT_EQ(BusyWindow::Begin(At(100.75)), At(86));
  EXPECT_EQ(BusyWindow::Begin(At(3.5)), At(0));
}

TEST(BusyWindow, SumsWhatFellIntoTheWindow) {
  BusyWindow window;
  window.Add(At(100.5), absl::Milliseconds(300));
  window.Add(At(101.2), absl::Milliseconds(400));  // 200 ms in each second.
  EXPECT_EQ(window.Sum(At(102)), absl::Milliseconds(700));
}

TEST(BusyWindow, ForgetsSecondBySecond) {
  BusyWindow window;
  window.Add(At(101.2), absl::Milliseconds(400));
  EXPECT_EQ(window.Sum(At(114.9)), absl::Milliseconds(400));
  EXPECT_EQ(window.Sum(At(115)), absl::Milliseconds(200));
  EXPECT_EQ(window.Sum(At(116)), absl::ZeroDuration());
  EXPECT_EQ(window.Sum(At(5000)), absl::ZeroDuration());
}

TEST(BusyWindow, LongIntervalCountsOnlyItsPartInTheWindow) {
  BusyWindow window;
  window.Add(At(100.5), absl::Hours(1));
  EXPECT_EQ(window.Sum(At(100.5)), absl::Milliseconds(14500));
}

TEST(BusyWindow, IntervalThatComesTooLateDoesNotWipeANewerSecond) {
  BusyWindow window;
  window.Add(At(116.5), absl::Milliseconds(100));
  window.Add(At(100.5), absl::Milliseconds(100));  // The same slot, 16 seconds before.
  EXPECT_EQ(window.Sum(At(116.5)), absl::Milliseconds(100));
}

TEST(BusyWindow, IntervalBeforeTheOriginIsCutThere) {
  BusyWindow window;
  window.Add(At(0.5), absl::Seconds(2));
  EXPECT_EQ(window.Sum(At(0.5)), absl::Milliseconds(500));
}

TEST(BusyWindow, ThreadsThatShareItLoseNothing) {
  BusyWindow window;
  {
    std::vector<std::unique_ptr<Thread>> threads;
    for (int t = 0; t < 4; ++t) {
      threads.push_back(std::make_unique<Thread>("busy", [&window] {
        for (int i = 0; i < 10'000; ++i) window.Add(At(7.5), absl::Nanoseconds(3));
      }));
    }
  }
  EXPECT_EQ(window.Sum(At(8)), absl::Nanoseconds(120'000));
}

}  // namespace
}  // namespace millrace
