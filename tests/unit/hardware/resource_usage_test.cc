// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/resource_usage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "server/base/unique_fd.h"
#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

class ResourceUsageTest : public testing::Test {
 protected:
  FileTree tree_;
};

TEST_F(ResourceUsageTest, NothingIsKnownWhereNothingCanBeRead) {
  const CgroupUsage usage = ReadCgroupUsage(tree_.root());
  EXPECT_EQ(usage.cpu_seconds, std::nullopt);
  EXPECT_EQ(usage.periods, std::nullopt);
  EXPECT_EQ(usage.memory_bytes, std::nullopt);
  EXPECT_EQ(usage.oom_kills, std::nullopt);
  EXPECT_EQ(ReadProcessUsage(tree_.root(), 7), std::nullopt);
}

TEST_F(ResourceUsageTest, OfV2ItIsTheProcessesOwnCgroupAndTheStrictestQuotaAbove) {
  tree_.Write("proc/self/cgroup", "0::/pod/server");
  tree_.Write("proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
  tree_.Write("sys/fs/cgroup/cpu.stat", "usage_usec 99000000");
  tree_.Write("sys/fs/cgroup/pod/cpu.stat",
              "usage_usec 5000000\nnr_periods 100\nnr_throttled 40\nthrottled_usec 2500000");
  tree_.Write("sys/fs/cgroup/pod/memory.max", "1000000");
  tree_.Write("sys/fs/cgroup/pod/memory.current", "900000");
  tree_.Write("sys/fs/cgroup/pod/server/cpu.stat",
              "usage_usec 3500000\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0");
  tree_.Write("sys/fs/cgroup/pod/server/memory.max", "max");
  tree_.Write("sys/fs/cgroup/pod/server/memory.current", "800000");
  tree_.Write("sys/fs/cgroup/pod/server/memory.stat", "anon 5\ninactive_file 50000");
  tree_.Write("sys/fs/cgroup/pod/server/memory.events", "oom 4\noom_kill 3");
  const CgroupUsage usage = ReadCgroupUsage(tree_.root());
  EXPECT_EQ(usage.cpu_seconds, 3.5);
  EXPECT_EQ(usage.periods, 100);
  EXPECT_EQ(usage.throttled_periods, 40);
  EXPECT_EQ(usage.throttled_seconds, 2.5);
  EXPECT_EQ(usage.memory_bytes, 800000);
  EXPECT_EQ(usage.working_set_bytes, 750000);
  EXPECT_EQ(usage.memory_limit_bytes, 1000000);
  EXPECT_EQ(usage.oom_kills, 3);
}

TEST_F(ResourceUsageTest, OfV1EachControllerHasAHierarchyAndUnlimitedIsALargeNumber) {
  tree_.Write("proc/self/cgroup", "4:memory:/m\n3:cpu,cpuacct:/c");
  tree_.Write("proc/self/mountinfo",
              "30 20 0:26 / /cg/memory rw - cgroup cgroup rw,memory\n"
              "31 20 0:27 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct");
  tree_.Write("cg/cpu/c/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000");
  tree_.Write("cg/cpu/c/cpuacct.usage", "7250000000");
  tree_.Write("cg/memory/m/memory.limit_in_bytes", "9223372036854771712");
  tree_.Write("cg/memory/m/memory.usage_in_bytes", "400");
  tree_.Write("cg/memory/m/memory.stat", "inactive_file 9\ntotal_inactive_file 100");
  tree_.Write("cg/memory/m/memory.oom_control", "under_oom 0\noom_kill 2");
  const CgroupUsage usage = ReadCgroupUsage(tree_.root());
  EXPECT_EQ(usage.cpu_seconds, 7.25);
  EXPECT_EQ(usage.throttled_periods, 4);
  EXPECT_EQ(usage.throttled_seconds, 1.5);
  EXPECT_EQ(usage.working_set_bytes, 300);
  EXPECT_EQ(usage.memory_limit_bytes, std::nullopt);
  EXPECT_EQ(usage.oom_kills, 2);
}

TEST_F(ResourceUsageTest, ProcessIsReadThoughItsNameLooksLikeFields) {
  tree_.Write("proc/stat", "cpu 1 2\nbtime 1700000000");
  tree_.Write("proc/7/stat",
              "7 (a) S 9 (b)) R 1 2 3 4 5 6 7 8 9 10 250 150 13 14 15 16 12 18 5000 4096 3 99");
  const auto usage = ReadProcessUsage(tree_.root(), 7);
  ASSERT_TRUE(usage.has_value());
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  EXPECT_EQ(usage->cpu_seconds, 400 / ticks);
  EXPECT_EQ(usage->threads, 12);
  EXPECT_EQ(usage->virtual_bytes, 4096);
  EXPECT_EQ(usage->resident_bytes, 3 * sysconf(_SC_PAGESIZE));
  EXPECT_EQ(usage->start_time, 1700000000 + 5000 / ticks);
}

TEST_F(ResourceUsageTest, OwnProcessIsFound) {
  const auto usage = ReadProcessUsage("/", getpid());
  ASSERT_TRUE(usage.has_value());
  EXPECT_GE(usage->threads, 1);
  EXPECT_GT(usage->resident_bytes, 100'000);
  EXPECT_GT(usage->start_time, 1.6e9);
}

TEST_F(ResourceUsageTest, DescriptorsAreCounted) {
  const DescriptorUsage before = ReadDescriptorUsage();
  const UniqueFd one(open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(ReadDescriptorUsage().open, before.open + 1);
  EXPECT_GE(before.most, before.open);
}

}  // namespace
}  // namespace millrace
