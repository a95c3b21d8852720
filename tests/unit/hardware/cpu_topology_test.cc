// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/cpu_topology.h"

#include <gtest/gtest.h>

#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

std::string CpuFolder(int cpu) { return "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/"; }

// Two sockets of two cores with two threads each, numbered as Linux does on most servers: siblings
// are 4 apart. Each socket is a NUMA node and has one L3.
void WriteTwoSockets(FileTree& tree) {
  tree.Write("sys/devices/system/cpu/online", "0-7")
      .Write("sys/devices/system/node/online", "0-1")
      .Write("sys/devices/system/node/node0/cpulist", "0-1,4-5")
      .Write("sys/devices/system/node/node1/cpulist", "2-3,6-7");
  for (int cpu = 0; cpu < 8; ++cpu) {
    const int core = cpu % 4;
    const char* l3 = core < 2 ? "0-1,4-5" : "2-3,6-7";
    const std::string siblings = std::to_string(core) + "," + std::to_string(core + 4);
    tree.Write(CpuFolder(cpu) + "topology/thread_siblings_list", siblings)
        .Write(CpuFolder(cpu) + "cache/index0/level", "1")
        .Write(CpuFolder(cpu) + "cache/index0/shared_cpu_list", siblings)
        .Write(CpuFolder(cpu) + "cache/index1/level", "3")
        .Write(CpuFolder(cpu) + "cache/index1/shared_cpu_list", l3);
  }
}

TEST(CpuTopology, ReadsCoresCachesAndNodes) {
  FileTree tree;
  WriteTwoSockets(tree);
  const CpuTopology topology = ReadCpuTopology(tree.root());
  ASSERT_EQ(topology.cpus.size(), 8u);
  EXPECT_EQ(topology.cores(), 4);
  EXPECT_EQ(topology.caches(), 2);
  EXPECT_EQ(topology.nodes(), 2);
  const CpuPlace place = topology.Find(7);
  EXPECT_EQ(place.cpu, 7);
  EXPECT_EQ(place.core, 3);
  EXPECT_EQ(place.cache, 2);
  EXPECT_EQ(place.node, 1);
}

TEST(CpuTopology, NewNameOfTheSiblingsFileGoesFirst) {
  FileTree tree;
  tree.Write("sys/devices/system/cpu/online", "0-1")
      .Write(CpuFolder(1) + "topology/core_cpus_list", "0-1")
      .Write(CpuFolder(1) + "topology/thread_siblings_list", "1");
  EXPECT_EQ(ReadCpuTopology(tree.root()).Find(1).core, 0);
}

TEST(CpuTopology, WithoutL3ThePackageSharesACache) {
  FileTree tree;
  tree.Write("sys/devices/system/cpu/online", "0-3");
  for (int cpu = 0; cpu < 4; ++cpu) {
    tree.Write(CpuFolder(cpu) + "topology/core_siblings_list", cpu < 2 ? "0-1" : "2-3")
        .Write(CpuFolder(cpu) + "cache/index0/level", "1");
  }
  const CpuTopology topology = ReadCpuTopology(tree.root());
  EXPECT_EQ(topology.caches(), 2);
  EXPECT_EQ(topology.Find(3).cache, 2);
  EXPECT_EQ(topology.nodes(), 1);
}

TEST(CpuTopology, WithOnlyTheListOfCpusEachIsACoreOfOneNode) {
  FileTree tree;
  tree.Write("sys/devices/system/cpu/online", "0,2-3");
  const CpuTopology topology = ReadCpuTopology(tree.root());
  EXPECT_EQ(topology.cores(), 3);
  EXPECT_EQ(topology.caches(), 1);
  EXPECT_EQ(topology.nodes(), 1);
}

TEST(CpuTopology, UnknownCpuIsACoreOfItsOwn) {
  FileTree tree;
  const CpuTopology topology = ReadCpuTopology(tree.root());
  EXPECT_TRUE(topology.cpus.empty());
  EXPECT_EQ(topology.Find(5).core, 5);
}

}  // namespace
}  // namespace millrace
