// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/suspect_payloads.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(SuspectPayloads, AreKnownUntilTheyAreRemoved) {
  SuspectPayloads suspects;
  EXPECT_TRUE(suspects.empty());
  suspects.Add(1);
  suspects.Add(1);
  EXPECT_EQ(suspects.size(), 1);
  EXPECT_TRUE(suspects.Contains(1));
  EXPECT_FALSE(suspects.Contains(2));
  suspects.Remove(2);
  suspects.Remove(1);
  EXPECT_FALSE(suspects.Contains(1));
  EXPECT_TRUE(suspects.empty());
}

TEST(SuspectPayloads, ForgetTheOneThatWasNotSeenForLongest) {
  SuspectPayloads suspects;
  for (uint64_t i = 0; i < SuspectPayloads::kMost; ++i) suspects.Add(i);
  EXPECT_TRUE(suspects.Contains(0));
  suspects.Add(1000);
  EXPECT_EQ(suspects.size(), SuspectPayloads::kMost);
  EXPECT_TRUE(suspects.Contains(0));
  EXPECT_FALSE(suspects.Contains(1));
  EXPECT_TRUE(suspects.Contains(1000));
}

}  // namespace
}  // namespace millrace
