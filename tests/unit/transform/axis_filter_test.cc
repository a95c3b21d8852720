// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/axis_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::FloatEq;

TEST(AxisFilter, HalvingWithATriangleWeighsFour) {
  const AxisFilter filter = MakeAxisFilter(Interpolation::kBilinear, 8, 8, 4, 1, 2);
  EXPECT_EQ(filter.taps, 4);
  EXPECT_THAT(filter.first, ElementsAre(1, 3));
  EXPECT_THAT(filter.weights, ElementsAre(0.125, 0.375, 0.375, 0.125, 0.125, 0.375, 0.375, 0.125));
}

TEST(AxisFilter, WhatLiesBeyondTheEdgeIsLeftOut) {
  const AxisFilter filter = MakeAxisFilter(Interpolation::kBilinear, 8, 8, 4, 0, 4);
  EXPECT_THAT(filter.first, ElementsAre(0, 1, 3, 4));
  // 3, 3 and 1 of 7; the one that has less begins earlier where samples end.
  EXPECT_FLOAT_EQ(filter.weights[0], 3 / 7.0F);
  EXPECT_EQ(filter.weights[3], 0);
  EXPECT_EQ(filter.weights[12], 0);
  EXPECT_FLOAT_EQ(filter.weights[15], 3 / 7.0F);
}

TEST(AxisFilter, AreaTakesTheMeanOfWhatAPixelCovers) {
  const AxisFilter filter = MakeAxisFilter(Interpolation::kArea, 9, 9, 3, 0, 3);
  EXPECT_THAT(filter.first, ElementsAre(0, 3, 6));
  EXPECT_THAT(filter.weights, Each(FloatEq(1 / 3.0F)));
}

TEST(AxisFilter, TheSameSizeTakesEachSampleAsItIs) {
  for (const auto interpolation :
       {Interpolation::kBilinear, Interpolation::kArea, Interpolation::kNearest}) {
    const AxisFilter filter = MakeAxisFilter(interpolation, 5, 5, 5, 1, 3);
    EXPECT_EQ(filter.taps, 1);
    EXPECT_THAT(filter.first, ElementsAre(1, 2, 3));
    EXPECT_THAT(filter.weights, Each(1.0F));
  }
}

TEST(AxisFilter, NearestTakesTheSampleInTheMiddle) {
  const AxisFilter smaller = MakeAxisFilter(Interpolation::kNearest, 10, 10, 4, 0, 4);
  EXPECT_THAT(smaller.first, ElementsAre(1, 3, 6, 8));
  const AxisFilter larger = MakeAxisFilter(Interpolation::kNearest, 2, 2, 5, 0, 5);
  EXPECT_THAT(larger.first, ElementsAre(0, 0, 1, 1, 1));
  // Far out, where steps aren't added up.
  const AxisFilter far =
      MakeAxisFilter(Interpolation::kNearest, 3, 3, 3'000'000'000, 2'000'000'000, 1);
  EXPECT_THAT(far.first, ElementsAre(2));
}

TEST(AxisFilter, WeightsAddUpToOneAndReadWhatThereIs) {
  std::mt19937_64 random(TestSeed());
  const auto any = [&](int least, int most) {
    return std::uniform_int_distribution<>(least, most)(random);
  };
  for (int i = 0; i < 2000; ++i) {
    const int samples = any(1, 1 << any(0, 10));
    const double length = samples - any(0, 7) / 8.0;
    const int resized = any(1, 1 << any(0, 10));
    const int begin = any(0, resized - 1);
    const int count = any(1, resized - begin);
    const auto interpolation = static_cast<Interpolation>(any(0, 2));
    SCOPED_TRACE(testing::Message()
                 << samples << " samples to " << resized << " pixels, from " << begin << " on "
                 << count << " by " << static_cast<int>(interpolation));
    const AxisFilter filter = MakeAxisFilter(interpolation, samples, length, resized, begin, count);
    ASSERT_EQ(filter.first.size(), count);
    ASSERT_EQ(filter.weights.size(), count * filter.taps);
    for (int pixel = 0; pixel < count; ++pixel) {
      ASSERT_GE(filter.first[pixel], 0);
      ASSERT_LE(filter.first[pixel] + filter.taps, samples);
      double sum = 0;
      for (int k = 0; k < filter.taps; ++k) {
        ASSERT_GE(filter.weights[pixel * filter.taps + k], 0);
        sum += filter.weights[pixel * filter.taps + k];
      }
      ASSERT_NEAR(sum, 1, 1e-5);
    }
  }
}

}  // namespace
}  // namespace millrace
