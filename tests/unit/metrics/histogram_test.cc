// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/histogram.h"

#include <gmock/gmock.h>

#include <array>

namespace millrace {
namespace {

using ::testing::ElementsAre;

constexpr std::array<int64_t, 3> kBounds = {1'000'000, 2'500'000, 10'000'000};

TEST(Histogram, ValueOnABoundFallsIntoThatBoundsBucket) {
  Histogram histogram(kBounds);
  histogram.Observe(1'000'000);
  histogram.Observe(1'000'001);
  histogram.Observe(10'000'000);
  histogram.Observe(10'000'001);
  HistogramValue value;
  histogram.AddTo(value, 1e-9);
  EXPECT_THAT(value.counts, ElementsAre(1, 1, 1, 1));
}

TEST(Histogram, BoundsAreExactInSeconds) {
  HistogramValue value;
  Histogram(kBounds).AddTo(value, 1e-9);
  EXPECT_THAT(value.bounds, ElementsAre(0.001, 0.0025, 0.01));
}

TEST(Histogram, NegativeValueCountsAsZero) {
  Histogram histogram(kBounds);
  histogram.Observe(-5);
  HistogramValue value;
  histogram.AddTo(value, 1);
  EXPECT_THAT(value.counts, ElementsAre(1, 0, 0, 0));
  EXPECT_EQ(value.sum, 0);
}

TEST(Histogram, TotalsAddUp) {
  Histogram one(kBounds);
  Histogram other(kBounds);
  one.Observe(500'000'000);
  other.Observe(1'500'000'000);
  HistogramValue value;
  one.AddTo(value, 1e-9);
  other.AddTo(value, 1e-9);
  EXPECT_THAT(value.counts, ElementsAre(0, 0, 0, 2));
  EXPECT_DOUBLE_EQ(value.sum, 2.0);
}

}  // namespace
}  // namespace millrace
