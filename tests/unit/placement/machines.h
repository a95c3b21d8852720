// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <numeric>
#include <utility>
#include <vector>

#include "server/hardware/hardware.h"

namespace millrace {

// A machine of `cores` physical cores, in numbers of `nodes` equal NUMA nodes with one L3 cache
// each, with `threads` CPUs on each core. Siblings are `cores` apart, as on most servers.
inline CpuTopology SimulateTopology(int cores, int threads = 1, int nodes = 1) {
  CpuTopology topology;
  const int cores_of_node = cores / nodes;
  for (int cpu = 0; cpu < cores * threads; ++cpu) {
    const int core = cpu % cores;
    const int node = core / cores_of_node;
    topology.cpus.push_back({cpu, core, node * cores_of_node, node});
  }
  return topology;
}

inline std::vector<int> CpuRange(int count) {
  std::vector<int> cpus(static_cast<size_t>(count));
  std::iota(cpus.begin(), cpus.end(), 0);
  return cpus;
}

// All of such a machine, floating.
inline Hardware SimulateCpus(int cores, int threads = 1, int nodes = 1) {
  Hardware hardware;
  hardware.topology = SimulateTopology(cores, threads, nodes);
  hardware.cpu.cpus = CpuRange(cores * threads);
  hardware.cpu.source = "every online CPU";
  return hardware;
}

// `cores` floating CPUs of which a quota allows some.
inline Hardware SimulateQuota(int cores, double quota) {
  Hardware hardware = SimulateCpus(cores);
  hardware.cpu.quota = quota;
  hardware.cpu.source = "a quota";
  return hardware;
}

// A part of a machine.
inline Hardware SimulateCpuset(Hardware hardware, std::vector<int> cpus) {
  hardware.cpu.cpus = std::move(cpus);
  hardware.cpu.exclusive = true;
  hardware.cpu.source = "a cpuset";
  return hardware;
}

inline Hardware SimulateGpus(int gpus) {
  Hardware hardware = SimulateCpus(8);
  for (int i = 0; i < gpus; ++i) {
    hardware.accelerators.push_back({i, "Simulated", 80ULL << 30, 79ULL << 30});
  }
  return hardware;
}

}  // namespace millrace
