// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <vector>

namespace millrace {

// Where a CPU (what the kernel numbers: a hardware thread) sits.
struct CpuPlace {
  int cpu = 0;
  int core = 0;   // The lowest CPU of its physical core: equal for SMT siblings.
  int cache = 0;  // The lowest CPU of those that share its L3 cache.
  int node = 0;   // Its NUMA node.
};

// The CPUs of the machine that are online, ascending. A plain value.
struct CpuTopology {
  std::vector<CpuPlace> cpus;

  // The place of `cpu`; where it isn't known, a core of its own on cache 0 and node 0.
  CpuPlace Find(int cpu) const;

  int cores() const;
  int caches() const;
  int nodes() const;
};

// Reads the topology from sysfs below `root`. Where files are missing: a CPU is its own core, the
// CPUs of a package share a cache, without packages those of a NUMA node, and all are on node 0.
CpuTopology ReadCpuTopology(const std::filesystem::path& root);

}  // namespace millrace
