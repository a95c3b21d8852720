// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>

namespace millrace {

// What this process's cgroup has used: on a container's own account, and not the machine's. Each is
// nullopt where cgroupfs doesn't tell.
struct CgroupUsage {
  std::optional<double> cpu_seconds;
  // Of a CPU quota: periods in which the cgroup wanted to run, those in which it was throttled, and
  // for how long. Of the cgroups above that have quotas, the largest of each.
  std::optional<int64_t> periods, throttled_periods;
  std::optional<double> throttled_seconds;
  std::optional<int64_t> memory_bytes;       // With the pages of files.
  std::optional<int64_t> working_set_bytes;  // Without those that can be dropped at once.
  std::optional<int64_t>
      memory_limit_bytes;  // The least of the limits above; nullopt: there is none.
  std::optional<int64_t> oom_kills;
};

// Reads it from cgroupfs below `root`, v1 and v2, namespaces and hybrid set-ups.
CgroupUsage ReadCgroupUsage(const std::filesystem::path& root);

// What a process uses.
struct ProcessUsage {
  double cpu_seconds = 0;  // Of all its threads.
  int64_t resident_bytes = 0;
  int64_t virtual_bytes = 0;
  int64_t threads = 0;
  double start_time = 0;  // Seconds since 1970.
};

// Reads it from procfs below `root`; nullopt where there is no such process.
std::optional<ProcessUsage> ReadProcessUsage(const std::filesystem::path& root, pid_t pid);

// How many file descriptors this process has open, and may have.
struct DescriptorUsage {
  int64_t open = 0;
  int64_t most = 0;
};
DescriptorUsage ReadDescriptorUsage();

}  // namespace millrace
