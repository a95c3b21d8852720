// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/process_groups.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "server/hardware/memory.h"
#include "server/hardware/resource_usage.h"

namespace millrace {

ProcessGroups::ProcessGroups(Clock& clock, std::filesystem::path root, absl::Duration budget,
                             absl::Duration memory_age)
    : clock_(clock), root_(std::move(root)), budget_(budget), memory_age_(memory_age) {}

std::vector<ProcessGroups::Usage> ProcessGroups::Look(const std::vector<Group>& groups) {
  std::set<std::string> names;
  for (const Group& group : groups) {
    names.insert(group.name);
    LookAtCpu(group.pids, groups_[group.name]);
  }
  std::erase_if(groups_, [&](const auto& entry) { return names.count(entry.first) == 0; });
  LookAtMemory();
  std::vector<Usage> usages;
  for (const Group& group : groups) {
    const Known& known = groups_[group.name];
    Usage usage = {.cpu_seconds = known.left_cpu_seconds, .memory_bytes = 0};
    for (const auto& [pid, process] : known.processes) {
      usage.cpu_seconds += process.cpu_seconds;
      usage.memory_bytes += process.memory_bytes;
    }
    usages.push_back(usage);
  }
  return usages;
}

void ProcessGroups::LookAtCpu(const std::vector<pid_t>& pids, Known& known) const {
  std::map<pid_t, Process> found;
  for (const pid_t pid : pids) {
    const std::optional<ProcessUsage> usage = ReadProcessUsage(root_, pid);
    if (!usage) continue;
    Process& process = found[pid];
    // Another process may have the number of one that has ended.
    const auto before = known.processes.find(pid);
    if (before != known.processes.end() && before->second.start_time == usage->start_time) {
      process = before->second;
      known.processes.erase(before);
    }
    process.start_time = usage->start_time;
    process.cpu_seconds = std::max(process.cpu_seconds, usage->cpu_seconds);
  }
  for (const auto& [pid, process] : known.processes) known.left_cpu_seconds += process.cpu_seconds;
  known.processes = std::move(found);
}

void ProcessGroups::LookAtMemory() {
  std::vector<std::pair<pid_t, Process*>> due;
  const absl::Time begin = clock_.Now();
  for (auto& [name, known] : groups_) {
    for (auto& [pid, process] : known.processes) {
      if (process.memory_read <= begin - memory_age_) due.emplace_back(pid, &process);
    }
  }
  std::sort(due.begin(), due.end(), [](const auto& a, const auto& b) {
    return a.second->memory_read < b.second->memory_read;
  });
  for (const auto& [pid, process] : due) {
    process->memory_bytes = OwnMemoryBytes(root_, pid);
    process->memory_read = clock_.Now();
    if (process->memory_read - begin >= budget_) return;
  }
}

}  // namespace millrace
