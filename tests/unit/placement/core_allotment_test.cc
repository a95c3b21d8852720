// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/placement/core_allotment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/unit/placement/machines.h"

namespace millrace {
namespace {

using testing::ElementsAre;

TEST(CoreAllotment, SingleCpuIsTakenAgainAndAgain) {
  CoreAllotment cores(SimulateTopology(1), {0});
  EXPECT_THAT(cores.Take(1), ElementsAre(0));
  EXPECT_THAT(cores.Take(1), ElementsAre(0));
  EXPECT_THAT(cores.Take(3), ElementsAre(0));
}

TEST(CoreAllotment, NodesTakeTurnsAndSiblingsComeLast) {
  // Two nodes of two cores with two threads each: siblings are 0/4, 1/5 and 2/6, 3/7.
  CoreAllotment cores(SimulateTopology(4, 2, 2), CpuRange(8));
  std::vector<int> order;
  for (int i = 0; i < 8; ++i) order.push_back(cores.Take(1).front());
  EXPECT_THAT(order, ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
}

TEST(CoreAllotment, ThreadsOfAReplicaAreNeighboursOnPhysicalCores) {
  CoreAllotment cores(SimulateTopology(8, 2, 2), CpuRange(16));
  EXPECT_THAT(cores.Take(2), ElementsAre(0, 1));
  EXPECT_THAT(cores.Take(2), ElementsAre(4, 5));
  EXPECT_THAT(cores.Take(4), ElementsAre(2, 3, 10, 11)) << "rather siblings than two nodes";
  EXPECT_THAT(cores.Take(2), ElementsAre(6, 7));
}

TEST(CoreAllotment, CacheGoesBeforeNode) {
  CpuTopology topology = SimulateTopology(8);  // One node with an L3 cache for each four cores.
  for (CpuPlace& place : topology.cpus) place.cache = place.cpu / 4 * 4;
  CoreAllotment cores(topology, CpuRange(8));
  EXPECT_THAT(cores.Take(3), ElementsAre(0, 1, 2));
  EXPECT_THAT(cores.Take(3), ElementsAre(4, 5, 6));
  EXPECT_THAT(cores.Take(2), ElementsAre(3, 7)) << "free cores go before shared ones";
}

TEST(CoreAllotment, WideReplicaTakesAWholeNodeThenTheMachine) {
  CoreAllotment node(SimulateTopology(8, 2, 2), CpuRange(16));
  EXPECT_THAT(node.Take(8), ElementsAre(0, 1, 2, 3, 8, 9, 10, 11));
  CoreAllotment machine(SimulateTopology(8, 2, 2), CpuRange(16));
  EXPECT_EQ(machine.Take(16), CpuRange(16));
  EXPECT_EQ(machine.Take(99), CpuRange(16));
}

TEST(CoreAllotment, OnlyCpusOfTheMaskAreTaken) {
  CoreAllotment cores(SimulateTopology(8, 2, 2), {2, 3, 10});
  EXPECT_THAT(cores.Take(1), ElementsAre(2));
  EXPECT_THAT(cores.Take(1), ElementsAre(3));
  EXPECT_THAT(cores.Take(1), ElementsAre(10));
  EXPECT_THAT(cores.Take(1), ElementsAre(3)) << "its core carries least";
}

TEST(CoreAllotment, NoCpuGetsMoreWhileEnoughOthersHaveLess) {
  for (int threads : {1, 2, 3, 5, 7}) {
    CoreAllotment cores(SimulateTopology(16, 2, 2), CpuRange(32));
    std::vector<int> load(32);
    for (int replica = 0; replica < 100; ++replica) {
      std::vector<int> sorted = load;
      std::sort(sorted.begin(), sorted.end());
      const int enough = sorted[static_cast<size_t>(threads) - 1];
      const std::vector<int> taken = cores.Take(threads);
      ASSERT_EQ(std::set<int>(taken.begin(), taken.end()).size(), static_cast<size_t>(threads));
      for (int cpu : taken) {
        ASSERT_LE(load[static_cast<size_t>(cpu)], enough) << threads << " threads, " << replica;
        ++load[static_cast<size_t>(cpu)];
      }
    }
  }
}

}  // namespace
}  // namespace millrace
