// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/memory.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

class MemoryTest : public testing::Test {
 protected:
  FileTree tree_;
};

TEST_F(MemoryTest, NothingIsKnownWhereNothingCanBeRead) {
  EXPECT_EQ(AvailableMemoryBytes(tree_.root()), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(OwnMemoryBytes(tree_.root(), 7), 0);
}

TEST_F(MemoryTest, MachinesMemoryLimits) {
  tree_.Write("proc/meminfo", "MemTotal:       8000 kB\nMemAvailable:   3000 kB");
  EXPECT_EQ(AvailableMemoryBytes(tree_.root()), 3000 * 1024);
}

TEST_F(MemoryTest, TightestGroupOfV2LimitsAndPagesThatCanBeDroppedAreFree) {
  tree_.Write("proc/meminfo", "MemAvailable: 3000 kB");
  tree_.Write("proc/self/cgroup", "0::/pod/server");
  tree_.Write("proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
  tree_.Write("sys/fs/cgroup/pod/memory.max", "1000000");
  tree_.Write("sys/fs/cgroup/pod/memory.current", "900000");
  tree_.Write("sys/fs/cgroup/pod/memory.stat", "anon 5\ninactive_file 50000");
  tree_.Write("sys/fs/cgroup/pod/server/memory.max", "max");
  tree_.Write("sys/fs/cgroup/pod/server/memory.current", "800000");
  EXPECT_EQ(AvailableMemoryBytes(tree_.root()), 150000);
}

TEST_F(MemoryTest, GroupOfV1LimitsAndOneThatIsFullLeavesNothing) {
  tree_.Write("proc/self/cgroup", "4:memory:/m\n3:cpu:/c");
  tree_.Write("proc/self/mountinfo", "30 20 0:26 / /cg/memory rw - cgroup cgroup rw,memory");
  tree_.Write("cg/memory/m/memory.limit_in_bytes", "1000");
  tree_.Write("cg/memory/m/memory.usage_in_bytes", "400");
  tree_.Write("cg/memory/m/memory.stat", "inactive_file 9\ntotal_inactive_file 100");
  EXPECT_EQ(AvailableMemoryBytes(tree_.root()), 700);
  tree_.Write("cg/memory/memory.limit_in_bytes", "500");
  tree_.Write("cg/memory/memory.usage_in_bytes", "600");
  EXPECT_EQ(AvailableMemoryBytes(tree_.root()), 0);
}

TEST_F(MemoryTest, OwnMemoryIsTheShareOfAnonymousPages) {
  tree_.Write("proc/7/status", "Name:\tx\nRssAnon:\t     300 kB");
  EXPECT_EQ(OwnMemoryBytes(tree_.root(), 7), 300 * 1024);
  tree_.Write("proc/7/smaps_rollup", "Pss:    900 kB\nPss_Anon:     200 kB");
  EXPECT_EQ(OwnMemoryBytes(tree_.root(), 7), 200 * 1024);
}

}  // namespace
}  // namespace millrace
