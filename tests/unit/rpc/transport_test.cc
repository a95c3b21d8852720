// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/transport.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

// gRPC sends GOAWAY at 0.9 to 1.1 times the age.
TEST(LifeOfStream, EndsWhenTheClientHasBeenSentAwayAndNotMuchLater) {
  for (const absl::Duration age : {absl::Seconds(1), absl::Minutes(30), absl::Hours(1000)}) {
    for (const double spread : {0.0, 0.5, 1.0}) {
      EXPECT_GT(LifeOfStream(age, spread), 1.1 * age);
      EXPECT_LE(LifeOfStream(age, spread), 1.3 * age);
    }
    EXPECT_LT(LifeOfStream(age, 0), LifeOfStream(age, 1));
  }
}

}  // namespace
}  // namespace millrace
