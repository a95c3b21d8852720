// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/rate_limiter.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

int Taken(RateLimiter& limiter, absl::Time now) {
  int taken = 0;
  while (limiter.Take(now)) ++taken;
  return taken;
}

TEST(RateLimiter, LetsANumberThroughAtOnceAndThenSoManyPerSecond) {
  RateLimiter limiter(2, 5);
  absl::Time now = absl::FromUnixSeconds(1000);
  EXPECT_EQ(Taken(limiter, now), 5);
  EXPECT_EQ(Taken(limiter, now), 0);
  EXPECT_EQ(Taken(limiter, now += absl::Seconds(1)), 2);
  EXPECT_EQ(Taken(limiter, now += absl::Milliseconds(500)), 1);
  EXPECT_EQ(Taken(limiter, now += absl::Hours(1)), 5);
}

TEST(RateLimiter, TimeThatGoesBackGivesNothing) {
  RateLimiter limiter(2, 1);
  const absl::Time now = absl::FromUnixSeconds(1000);
  EXPECT_EQ(Taken(limiter, now), 1);
  EXPECT_EQ(Taken(limiter, now - absl::Seconds(10)), 0);
  EXPECT_EQ(Taken(limiter, now), 0);
}

}  // namespace
}  // namespace millrace
