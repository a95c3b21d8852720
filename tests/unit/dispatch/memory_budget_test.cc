// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/memory_budget.h"

#include <gtest/gtest.h>

#include <memory>

namespace millrace {
namespace {

class Recorder final : public Claimant {
 public:
  void TryAgain() override { ++called; }
  int called = 0;
};

class MemoryBudgetTest : public testing::Test {
 protected:
  const std::shared_ptr<Recorder> claimant_ = std::make_shared<Recorder>();
  MemoryBudget budget_{100};
};

TEST_F(MemoryBudgetTest, GivesUpToItsLimit) {
  EXPECT_TRUE(budget_.TryTake(claimant_, 60));
  EXPECT_FALSE(budget_.TryTake(claimant_, 41));
  EXPECT_TRUE(budget_.TryTake(claimant_, 40));
  EXPECT_EQ(budget_.taken(), 100);
}

TEST_F(MemoryBudgetTest, EmptyOneGivesAnyNumber) {
  EXPECT_TRUE(budget_.TryTake(claimant_, 1000));
  EXPECT_FALSE(budget_.TryTake(claimant_, 1));
  budget_.GiveBack(1000);
  EXPECT_EQ(budget_.taken(), 0);
}

TEST_F(MemoryBudgetTest, WhoWasRefusedIsCalledOnceWhenSomeIsGivenBack) {
  ASSERT_TRUE(budget_.TryTake(claimant_, 100));
  budget_.GiveBack(10);
  EXPECT_EQ(claimant_->called, 0);  // It waited for nothing.
  ASSERT_FALSE(budget_.TryTake(claimant_, 50));
  ASSERT_FALSE(budget_.TryTake(claimant_, 50));
  budget_.GiveBack(10);
  EXPECT_EQ(claimant_->called, 1);
  budget_.GiveBack(10);
  EXPECT_EQ(claimant_->called, 1);
}

TEST_F(MemoryBudgetTest, TheDeadAreNotCalled) {
  ASSERT_TRUE(budget_.TryTake(claimant_, 100));
  ASSERT_FALSE(budget_.TryTake(std::make_shared<Recorder>(), 50));
  budget_.GiveBack(100);
  EXPECT_EQ(budget_.taken(), 0);
}

}  // namespace
}  // namespace millrace
