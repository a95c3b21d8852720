// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/hardware.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

TEST(Hardware, DescriptionIsOneLineWithBudgetSourceAndAccelerators) {
  FileTree tree;
  tree.Write("sys/devices/system/cpu/online", "0-3")
      .Write("proc/self/status", "Cpus_allowed_list:\t0-1");
  Hardware hardware = DetectHardware(tree.root());
  EXPECT_EQ(DescribeHardware(hardware),
            "CPU budget 2 cores on CPUs 0-1 (affinity mask of 2 of 4 CPUs); machine: 4 physical "
            "cores, 1 L3 cache, 1 NUMA node; no GPU");
  hardware.accelerators = {{0, "NVIDIA L4", 24ULL << 30, 23ULL << 30}};
  EXPECT_THAT(DescribeHardware(hardware),
              testing::EndsWith("; GPU 0 NVIDIA L4 (23.0 of 24.0 GiB free)"));
}

// On the machine that runs the test the kernel is the oracle.
TEST(Hardware, BudgetOfThisMachineIsWhatTheKernelAllows) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  const Hardware hardware = DetectHardware();
  for (int cpu : hardware.cpu.cpus) EXPECT_TRUE(CPU_ISSET(cpu, &set)) << cpu;
  EXPECT_GE(hardware.cpu.slots(), 1);
  EXPECT_LE(hardware.cpu.slots(), CPU_COUNT(&set));
  EXPECT_GE(hardware.topology.cpus.size(), hardware.cpu.cpus.size());
}

}  // namespace
}  // namespace millrace
