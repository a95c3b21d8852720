// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/clock.h"

namespace millrace {

// What groups of processes use that come and go, such as the workers of each model.
// Thread-compatible.
//
// Invariants:
//  1. The CPU time of a group never shrinks while the group is there, whoever of it ends.
//  2. A look takes a bounded time: to find out a process's memory the kernel walks through all of
//     it, so each look does so for those only whose figure is the oldest, until `budget` is over.
class ProcessGroups {
 public:
  // Reads procfs below `root`. A process's memory is looked at again after `memory_age`.
  explicit ProcessGroups(Clock& clock, std::filesystem::path root = "/",
                         absl::Duration budget = absl::Milliseconds(25),
                         absl::Duration memory_age = absl::Seconds(10));

  struct Group {
    std::string name;
    std::vector<pid_t> pids;
  };
  struct Usage {
    double cpu_seconds = 0;    // Of those in the group and those that have left it.
    int64_t memory_bytes = 0;  // As far as it is known yet; what processes share counts once.
  };
  // What each of `groups` uses. A group that isn't among them any more is forgotten.
  std::vector<Usage> Look(const std::vector<Group>& groups);

 private:
  struct Process {
    double start_time = 0;
    double cpu_seconds = 0;
    int64_t memory_bytes = 0;
    absl::Time memory_read = absl::InfinitePast();
  };
  struct Known {
    double left_cpu_seconds = 0;  // Of those that have left.
    std::map<pid_t, Process> processes;
  };

  void LookAtCpu(const std::vector<pid_t>& pids, Known& known) const;
  void LookAtMemory();

  Clock& clock_;
  const std::filesystem::path root_;
  const absl::Duration budget_;
  const absl::Duration memory_age_;
  std::map<std::string, Known> groups_;
};

}  // namespace millrace
