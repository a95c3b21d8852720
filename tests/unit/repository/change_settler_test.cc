// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/change_settler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class ChangeSettlerTest : public testing::Test {
 protected:
  static absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

  ChangeSettler settler_{absl::Seconds(2), {{"a", "1"}}};
};

TEST_F(ChangeSettlerTest, WhatIsKnownIsNoChange) {
  EXPECT_THAT(settler_.Look({{"a", "1"}}, At(0)), IsEmpty());
  EXPECT_EQ(settler_.next_look(), absl::InfiniteFuture());
}

TEST_F(ChangeSettlerTest, ChangeIsToldOnceItHasStayedForTheSettleTime) {
  EXPECT_THAT(settler_.Look({{"a", "2"}}, At(0)), IsEmpty());
  EXPECT_EQ(settler_.next_look(), At(2));
  EXPECT_THAT(settler_.Look({{"a", "2"}}, At(1.9)), IsEmpty());
  EXPECT_THAT(settler_.Look({{"a", "2"}}, At(2)), ElementsAre("a"));
  EXPECT_THAT(settler_.Look({{"a", "2"}}, At(3)), IsEmpty());
  EXPECT_EQ(settler_.next_look(), absl::InfiniteFuture());
}

TEST_F(ChangeSettlerTest, EveryFurtherChangeBeginsTheTimeAnew) {
  settler_.Look({{"a", "2"}}, At(0));
  EXPECT_THAT(settler_.Look({{"a", "3"}}, At(1.5)), IsEmpty());
  EXPECT_THAT(settler_.Look({{"a", "4"}}, At(3)), IsEmpty());
  EXPECT_EQ(settler_.next_look(), At(5));
  EXPECT_THAT(settler_.Look({{"a", "4"}}, At(5)), ElementsAre("a"));
}

TEST_F(ChangeSettlerTest, ChangeThatIsTakenBackIsNone) {
  settler_.Look({{"a", "2"}}, At(0));
  EXPECT_THAT(settler_.Look({{"a", "1"}}, At(1)), IsEmpty());
  EXPECT_EQ(settler_.next_look(), absl::InfiniteFuture());
  EXPECT_THAT(settler_.Look({{"a", "2"}}, At(2)), IsEmpty());
}

TEST_F(ChangeSettlerTest, ModelsComeAndGoLikeAnyChange) {
  settler_.Look({{"b", "1"}}, At(0));
  EXPECT_THAT(settler_.Look({{"b", "1"}}, At(2)), ElementsAre("a", "b"));
  settler_.Look({{"a", "1"}}, At(3));
  EXPECT_THAT(settler_.Look({{"a", "1"}}, At(5)), ElementsAre("a", "b"));
}

TEST_F(ChangeSettlerTest, OneModelsChangesDontDelayAnothers) {
  settler_.Look({{"a", "2"}, {"b", "1"}}, At(0));
  settler_.Look({{"a", "2"}, {"b", "2"}}, At(1));
  EXPECT_THAT(settler_.Look({{"a", "2"}, {"b", "2"}}, At(2)), ElementsAre("a"));
  EXPECT_EQ(settler_.next_look(), At(3));
}

}  // namespace
}  // namespace millrace
