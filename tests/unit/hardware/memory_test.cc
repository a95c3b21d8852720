// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/memory.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

namespace millrace {
namespace {

namespace fs = std::filesystem;

class MemoryTest : public testing::Test {
 protected:
  MemoryTest() {
    std::string pattern = testing::TempDir() + "/memory-XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  ~MemoryTest() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  fs::path root_;
};

TEST_F(MemoryTest, NothingIsKnownWhereNothingCanBeRead) {
  EXPECT_EQ(AvailableMemoryBytes(root_), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(OwnMemoryBytes(root_, 7), 0);
}

TEST_F(MemoryTest, MachinesMemoryLimits) {
  Write("proc/meminfo", "MemTotal:       8000 kB\nMemAvailable:   3000 kB\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 3000 * 1024);
}

TEST_F(MemoryTest, TightestGroupOfV2LimitsAndPagesThatCanBeDroppedAreFree) {
  Write("proc/meminfo", "MemAvailable: 3000 kB\n");
  Write("proc/self/cgroup", "0::/pod/server\n");
  Write("proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  Write("sys/fs/cgroup/pod/memory.max", "1000000\n");
  Write("sys/fs/cgroup/pod/memory.current", "900000\n");
  Write("sys/fs/cgroup/pod/memory.stat", "anon 5\ninactive_file 50000\n");
  Write("sys/fs/cgroup/pod/server/memory.max", "max\n");
  Write("sys/fs/cgroup/pod/server/memory.current", "800000\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 150000);
}

TEST_F(MemoryTest, GroupOfV1LimitsAndOneThatIsFullLeavesNothing) {
  Write("proc/self/cgroup", "4:memory:/m\n3:cpu:/c\n");
  Write("proc/self/mountinfo", "30 20 0:26 / /cg/memory rw - cgroup cgroup rw,memory\n");
  Write("cg/memory/m/memory.limit_in_bytes", "1000\n");
  Write("cg/memory/m/memory.usage_in_bytes", "400\n");
  Write("cg/memory/m/memory.stat", "inactive_file 9\ntotal_inactive_file 100\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 700);
  Write("cg/memory/memory.limit_in_bytes", "500\n");
  Write("cg/memory/memory.usage_in_bytes", "600\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 0);
}

TEST_F(MemoryTest, OwnMemoryIsTheShareOfAnonymousPages) {
  Write("proc/7/status", "Name:\tx\nRssAnon:\t     300 kB\n");
  EXPECT_EQ(OwnMemoryBytes(root_, 7), 300 * 1024);
  Write("proc/7/smaps_rollup", "Pss:    900 kB\nPss_Anon:     200 kB\n");
  EXPECT_EQ(OwnMemoryBytes(root_, 7), 200 * 1024);
}

}  // namespace
}  // namespace millrace
