// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/restart_backoff.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

class RestartBackoffTest : public testing::Test {
 protected:
  absl::Duration PauseAfter(absl::Duration lived) { return backoff_.NextPause(lived, random_); }

  std::mt19937_64 random_{TestSeed()};
  const RestartBackoff::Options options_ = {};
  RestartBackoff backoff_{options_};
};

TEST_F(RestartBackoffTest, FirstDeathIsReplacedAtOnce) {
  EXPECT_EQ(PauseAfter(absl::ZeroDuration()), absl::ZeroDuration());
}

TEST_F(RestartBackoffTest, StepsDoubleUpToTheMostAndPausesLieInTheirUpperHalf) {
  PauseAfter(absl::ZeroDuration());
  absl::Duration step = options_.first;
  for (int death = 2; death < 2000; ++death) {
    const absl::Duration pause = PauseAfter(absl::Milliseconds(1));
    EXPECT_GE(pause, step / 2) << death;
    EXPECT_LE(pause, step) << death;
    step = std::min(2 * step, options_.most);
  }
}

TEST_F(RestartBackoffTest, LongLifeIsForgiven) {
  for (int i = 0; i < 10; ++i) PauseAfter(absl::Milliseconds(1));
  EXPECT_GT(PauseAfter(options_.healthy_after - absl::Nanoseconds(1)), absl::Seconds(1));
  EXPECT_EQ(PauseAfter(options_.healthy_after), absl::ZeroDuration());
  EXPECT_LE(PauseAfter(absl::ZeroDuration()), options_.first);
}

TEST_F(RestartBackoffTest, ReplicasDoNotStartInStep) {
  RestartBackoff other{options_};
  PauseAfter(absl::ZeroDuration());
  other.NextPause(absl::ZeroDuration(), random_);
  EXPECT_NE(PauseAfter(absl::ZeroDuration()), other.NextPause(absl::ZeroDuration(), random_));
}

}  // namespace
}  // namespace millrace
