// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/stage_times.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(RecentMedian, IsThatOfTheLastValues) {
  RecentMedian median;
  EXPECT_EQ(median.Get(), absl::ZeroDuration());
  median.Add(absl::Seconds(5));
  EXPECT_EQ(median.Get(), absl::Seconds(5));
  median.Add(absl::Seconds(100));
  median.Add(absl::Seconds(1));
  EXPECT_EQ(median.Get(), absl::Seconds(5)) << "Outliers don't move it.";
  for (int i = 0; i < 63; ++i) median.Add(absl::Seconds(7));
  EXPECT_EQ(median.Get(), absl::Seconds(7));
  for (int i = 0; i < 32; ++i) median.Add(absl::Seconds(9));
  EXPECT_EQ(median.Get(), absl::Seconds(9)) << "The others are the older ones.";
}

TEST(StageTimes, CountsCoresAndRows) {
  StageTimes times;
  times.Executed(4, absl::Milliseconds(10), 2);
  EXPECT_EQ(times.medians().prepare, absl::ZeroDuration());
  EXPECT_EQ(times.medians().execute, absl::Milliseconds(5)) << "Two cores for 10 ms are 4 rows'.";
  times.Decoded(absl::Milliseconds(3));
  times.Filled(2, absl::Milliseconds(1));
  EXPECT_EQ(times.medians().prepare, absl::Microseconds(3500));
  EXPECT_EQ(times.medians().rows, 4);
}

TEST(StageTimes, GpusCostNoCores) {
  StageTimes times;
  times.Executed(8, absl::Milliseconds(10), 0);
  EXPECT_EQ(times.medians().execute, absl::ZeroDuration());
  EXPECT_EQ(times.medians().rows, 8);
}

}  // namespace
}  // namespace millrace
