// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/budget_watcher.h"

#include <gtest/gtest.h>

#include "server/hardware/cpu_list.h"
#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

// A container on cgroup v2 whose files change while it runs.
class BudgetWatcherTest : public testing::Test {
 protected:
  BudgetWatcherTest() {
    tree_.Write("sys/devices/system/cpu/online", "0-7")
        .Write("proc/self/cgroup", "0::/app")
        .Write("proc/self/mountinfo",
               "30 23 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate");
    SetQuota("200000 100000");
    SetCpus("0-7");
    watcher_.emplace(ReadCpuBudget(tree_.root()), tree_.root());
  }

  void SetQuota(const std::string& cpu_max) { tree_.Write("sys/fs/cgroup/app/cpu.max", cpu_max); }
  void SetCpus(const std::string& list) {
    tree_.Write("proc/self/status", "Cpus_allowed_list:\t" + list)
        .Write("sys/fs/cgroup/app/cpuset.cpus.effective", list);
  }

  FileTree tree_;
  std::optional<BudgetWatcher> watcher_;
};

TEST_F(BudgetWatcherTest, WhatStaysIsNoChange) {
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(watcher_->Look());
}

TEST_F(BudgetWatcherTest, ChangeCountsOnceItHasStoodStillForALook) {
  SetQuota("400000 100000");
  EXPECT_FALSE(watcher_->Look());
  const std::optional<CpuBudget> budget = watcher_->Look();
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->quota, 4);
  EXPECT_FALSE(watcher_->Look()) << "It is told once.";
}

TEST_F(BudgetWatcherTest, ChangeInSeveralStepsIsOne) {
  SetQuota("400000 100000");
  EXPECT_FALSE(watcher_->Look());
  SetCpus("0-3");
  EXPECT_FALSE(watcher_->Look());
  const std::optional<CpuBudget> budget = watcher_->Look();
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->quota, 4);
  EXPECT_EQ(FormatCpuList(budget->cpus), "0-3");
  EXPECT_TRUE(budget->exclusive);
}

TEST_F(BudgetWatcherTest, ChangeThatIsTakenBackIsNone) {
  SetQuota("400000 100000");
  EXPECT_FALSE(watcher_->Look());
  SetQuota("200000 100000");
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(watcher_->Look());
}

TEST_F(BudgetWatcherTest, WhatNeverStandsStillChangesNothing) {
  for (const char* quota : {"300000", "400000", "300000", "400000", "300000"}) {
    SetQuota(std::string(quota) + " 100000");
    EXPECT_FALSE(watcher_->Look());
  }
  EXPECT_TRUE(watcher_->Look()) << "until it does";
}

TEST_F(BudgetWatcherTest, OtherCpusInTheSameNumberAreAChange) {
  SetCpus("0-3");
  EXPECT_FALSE(watcher_->Look());
  EXPECT_TRUE(watcher_->Look());
  SetCpus("4-7");
  EXPECT_FALSE(watcher_->Look());
  const std::optional<CpuBudget> budget = watcher_->Look();
  ASSERT_TRUE(budget);
  EXPECT_EQ(FormatCpuList(budget->cpus), "4-7");
}

TEST_F(BudgetWatcherTest, FileThatMovesElsewhereWithTheSameLimitIsNone) {
  tree_.Write("sys/fs/cgroup/cpu.max", "200000 100000");
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(watcher_->Look());
}

}  // namespace
}  // namespace millrace
