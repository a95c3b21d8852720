// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace millrace {

// How much CPU this process may use. A plain value.
struct CpuBudget {
  std::vector<int> cpus = {0};  // Ascending, never empty: where its threads may run.
  double quota = std::numeric_limits<double>::infinity();  // In cores; infinity where none is set.
  bool exclusive = false;  // Whether `cpus` is narrower than the machine's online CPUs.
  std::string source;      // Which limit decided, for the log.

  // What it is in cores, with the fraction of a quota.
  double cores() const;

  // How many cores' worth of work can run at a time: whole cores only, at least one.
  int slots() const;

  // The same with a quota's fraction rounded up: more than that can't gain anything.
  int most_slots() const;
};

// "2 cores on CPUs 0-3 (quota of 2.5 cores set in /sys/fs/cgroup/app)", for the log.
std::string DescribeBudget(const CpuBudget& budget);

// Reads the budget from procfs and cgroupfs below `root`:
//  - the affinity mask of the process, without CPUs that are offline;
//  - the effective cpuset (cgroup v1 and v2);
//  - the tightest CPU quota of the process's cgroup and of every ancestor that its mounts show
//    (v1 cpu.cfs_quota_us, v2 cpu.max), also in cgroup namespaces and hybrid set-ups.
// What is missing or unreadable doesn't limit.
CpuBudget ReadCpuBudget(const std::filesystem::path& root);

}  // namespace millrace
