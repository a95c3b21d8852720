// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/gate.h"

#include <gtest/gtest.h>

#include "server/base/thread.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

TEST(Gate, CountsWhoIsInside) {
  Gate gate;
  EXPECT_TRUE(gate.TryEnter());
  EXPECT_TRUE(gate.TryEnter());
  EXPECT_EQ(gate.inside(), 2);
  gate.Leave();
  EXPECT_EQ(gate.inside(), 1);
}

TEST(Gate, EmptyOneClosesAtOnce) {
  Gate gate;
  FakeClock clock;
  EXPECT_TRUE(gate.Close(clock, clock.Now()));
}

TEST(Gate, LetsNobodyInOnceClosed) {
  Gate gate;
  FakeClock clock;
  ASSERT_TRUE(gate.Close(clock, clock.Now()));
  EXPECT_FALSE(gate.TryEnter());
  EXPECT_EQ(gate.inside(), 0);
}

TEST(Gate, CloseWaitsUntilTheLastHasLeft) {
  Gate gate;
  FakeClock clock;
  ASSERT_TRUE(gate.TryEnter());
  ASSERT_TRUE(gate.TryEnter());
  bool all_left = false;
  {
    Thread closer("closer", [&] { all_left = gate.Close(clock, absl::InfiniteFuture()); });
    clock.WaitUntilBlocked(1);
    EXPECT_FALSE(gate.TryEnter());
    gate.Leave();
    clock.WaitUntilBlocked(1);
    gate.Leave();
  }
  EXPECT_TRUE(all_left);
}

TEST(Gate, CloseGivesUpAtItsDeadlineAndMayBeTriedAgain) {
  Gate gate;
  FakeClock clock;
  ASSERT_TRUE(gate.TryEnter());
  bool all_left = true;
  {
    Thread closer("closer", [&] { all_left = gate.Close(clock, clock.Now() + absl::Seconds(5)); });
    clock.WaitUntilBlocked(1);
    clock.Advance(absl::Seconds(5));
  }
  EXPECT_FALSE(all_left);
  gate.Leave();
  EXPECT_TRUE(gate.Close(clock, clock.Now()));
}

TEST(GateDeathTest, LeaveWithoutEnterAborts) {
  Gate gate;
  EXPECT_DEATH(gate.Leave(), "needs a TryEnter");
}

}  // namespace
}  // namespace millrace
