// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/reconnect_backoff.h"

#include "gtest/gtest.h"

namespace millrace {
namespace {

TEST(ReconnectBackoff, DoublesUpToItsLimitAndBeginsAnewAfterASuccess) {
  ReconnectBackoff backoff(absl::Seconds(1), absl::Seconds(5));
  const double almost = 1 - 1e-9;
  for (const double expected : {1, 2, 4, 5, 5}) {
    EXPECT_NEAR(absl::ToDoubleSeconds(backoff.Next(almost)), expected, 1e-6);
  }
  backoff.Reset();
  EXPECT_NEAR(absl::ToDoubleSeconds(backoff.Next(almost)), 1, 1e-6);
}

TEST(ReconnectBackoff, IsARandomPartFromHalfToAll) {
  ReconnectBackoff backoff(absl::Seconds(4), absl::Seconds(4));
  EXPECT_EQ(backoff.Next(0), absl::Seconds(2));
  EXPECT_EQ(backoff.Next(0.5), absl::Seconds(3));
}

TEST(ReconnectBackoff, LimitHoldsForTheFirstWaitToo) {
  ReconnectBackoff backoff(absl::Seconds(4), absl::Seconds(1));
  EXPECT_LE(backoff.Next(0.999), absl::Seconds(1));
}

}  // namespace
}  // namespace millrace
