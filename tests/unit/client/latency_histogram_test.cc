// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/latency_histogram.h"

#include "gtest/gtest.h"

namespace millrace {
namespace {

TEST(LatencyHistogram, PercentilesAreWithinAPercent) {
  LatencyHistogram latencies;
  EXPECT_EQ(latencies.Percentile(0.5), absl::ZeroDuration());
  for (int i = 1; i <= 10000; ++i) latencies.Add(i * absl::Microseconds(100));
  EXPECT_EQ(latencies.count(), 10000);
  for (const double fraction : {0.01, 0.5, 0.99, 1.0}) {
    const double expected = fraction * 1000;  // ms
    EXPECT_NEAR(absl::ToDoubleMilliseconds(latencies.Percentile(fraction)), expected,
                0.0101 * expected);
  }
}

TEST(LatencyHistogram, ExtremesAreCountedAndHistogramsAdded) {
  LatencyHistogram some, others;
  some.Add(absl::ZeroDuration());
  others.Add(absl::Hours(100000));
  some.Add(others);
  EXPECT_EQ(some.count(), 2);
  EXPECT_LT(some.Percentile(0.5), absl::Microseconds(11));
  EXPECT_GT(some.Percentile(1), absl::Hours(24));
}

}  // namespace
}  // namespace millrace
