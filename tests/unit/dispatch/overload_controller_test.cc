// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/overload_controller.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

constexpr absl::Duration kTarget = absl::Milliseconds(20);
constexpr absl::Duration kInterval = absl::Milliseconds(100);

class OverloadControllerTest : public testing::Test {
 protected:
  // Batches taken every 10 ms for `duration`, whose oldest requests had waited for `waited`.
  void Run(absl::Duration duration, absl::Duration waited) {
    for (const absl::Time end = now_ + duration; now_ < end; now_ += absl::Milliseconds(10)) {
      controller_.BatchTaken(now_, waited);
    }
  }

  absl::Time now_ = absl::UnixEpoch();
  OverloadController controller_{{.target = kTarget, .interval = kInterval}};
};

TEST_F(OverloadControllerTest, QueueThatStandsForAnIntervalIsOverload) {
  Run(kInterval, 2 * kTarget);
  EXPECT_FALSE(controller_.overloaded());
  EXPECT_EQ(controller_.MostWait(), absl::InfiniteDuration());
  Run(kInterval, 2 * kTarget);
  EXPECT_TRUE(controller_.overloaded());
  EXPECT_EQ(controller_.MostWait(), kTarget);
}

TEST_F(OverloadControllerTest, BurstThatIsOverWithinTheIntervalIsNot) {
  for (int i = 0; i < 10; ++i) {
    Run(kInterval * 0.9, 10 * kTarget);
    Run(kInterval * 0.1, absl::ZeroDuration());
    EXPECT_FALSE(controller_.overloaded());
  }
}

TEST_F(OverloadControllerTest, LastsWhileTheQueueStandsJustBelowTheTarget) {
  Run(3 * kInterval, 2 * kTarget);
  Run(3 * kInterval, kTarget * 0.9);  // Who waits longer is shed.
  EXPECT_TRUE(controller_.overloaded());
  Run(3 * kInterval, kTarget * 0.4);
  EXPECT_FALSE(controller_.overloaded());
}

TEST(OverloadController, IsOffWithoutATarget) {
  OverloadController controller({});
  EXPECT_FALSE(controller.enabled());
  for (int i = 0; i < 100; ++i) {
    controller.BatchTaken(absl::UnixEpoch() + i * absl::Seconds(1), absl::Hours(1));
  }
  EXPECT_FALSE(controller.overloaded());
}

}  // namespace
}  // namespace millrace
