// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/failing_flows.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

constexpr absl::Time kNow = absl::UnixEpoch();
constexpr absl::Duration kApart = FailingFlows::kApart;

TEST(FailingFlows, AreApartForAWhileAfterTheirLastFailure) {
  FailingFlows failing;
  EXPECT_FALSE(failing.Contains(1, kNow));
  failing.Failed(1, kNow);
  EXPECT_TRUE(failing.Contains(1, kNow));
  EXPECT_FALSE(failing.Contains(2, kNow));
  failing.Failed(1, kNow + kApart / 2);
  EXPECT_EQ(failing.size(), 1);
  EXPECT_TRUE(failing.Contains(1, kNow + kApart));
  EXPECT_FALSE(failing.Contains(1, kNow + kApart / 2 + kApart));
}

TEST(FailingFlows, AreForgottenWithASuccess) {
  FailingFlows failing;
  failing.Failed(1, kNow);
  failing.Failed(2, kNow);
  failing.Succeeded(1);
  failing.Succeeded(3);
  EXPECT_FALSE(failing.Contains(1, kNow));
  EXPECT_TRUE(failing.Contains(2, kNow));
  failing.Succeeded(2);
  EXPECT_TRUE(failing.empty());
}

TEST(FailingFlows, AreBoundedInNumberAndTime) {
  FailingFlows failing;
  for (uint64_t flow = 0; flow < FailingFlows::kMost; ++flow) failing.Failed(flow, kNow);
  failing.Failed(0, kNow);
  failing.Failed(1000, kNow);
  EXPECT_EQ(failing.size(), FailingFlows::kMost);
  EXPECT_TRUE(failing.Contains(0, kNow));
  EXPECT_FALSE(failing.Contains(1, kNow)) << "It failed longest ago.";
  failing.Failed(7, kNow + kApart);
  EXPECT_EQ(failing.size(), 1) << "The others' time has passed.";
}

}  // namespace
}  // namespace millrace
