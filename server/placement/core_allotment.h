// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "server/hardware/cpu_topology.h"

namespace millrace {

// Hands out the CPUs of a mask to replicas that are pinned. Thread-compatible.
//
// Invariants:
//  1. CPUs that carry fewer threads go first: no CPU gets a second thread while enough others have
//     none.
//  2. Among those, physical cores that carry no thread go before SMT siblings of busy ones, and
//     the CPUs of one replica share an L3 cache, else a NUMA node, where that is possible.
//  3. Replicas spread over NUMA nodes and L3 caches: the emptiest goes first.
class CoreAllotment {
 public:
  // REQUIRES: `cpus` isn't empty.
  CoreAllotment(const CpuTopology& topology, const std::vector<int>& cpus);

  // Takes CPUs for one replica of `threads` threads and returns them, ascending; all of the mask
  // where it has fewer.
  std::vector<int> Take(int threads);

  // Counts a thread on each of `cpus`: of a replica that runs there already. Others are ignored.
  void Occupy(const std::vector<int>& cpus);

 private:
  struct Cpu {
    CpuPlace place;
    int threads = 0;  // Handed out on this CPU.
  };
  enum class Scope { kCache, kNode, kMachine };

  std::vector<Cpu*> Candidates(int level, bool free_cores);
  std::vector<Cpu*> BestGroup(const std::vector<Cpu*>& candidates, Scope scope, size_t size) const;
  std::vector<Cpu*> Choose(size_t size);

  std::vector<Cpu> cpus_;
};

}  // namespace millrace
