// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/resource_usage.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/hardware/cgroup.h"
#include "server/hardware/number_file.h"
#include "server/hardware/text_file.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNoLimitV1 = int64_t{1} << 60;  // v1 says "unlimited" as a number near 2^63.

std::optional<double> Seconds(std::optional<int64_t> number, double unit) {
  if (!number) return std::nullopt;
  return static_cast<double>(*number) * unit;
}

// Keeps the larger; each only grows, so the largest does too.
template <typename Number>
void Raise(std::optional<Number>& most, const std::optional<Number>& value) {
  if (value && (!most || *value > *most)) most = value;
}

void ReadCpu(const fs::path& root, CgroupUsage& usage) {
  for (const CgroupFolder& folder : FindCgroupFolders(root, "cpu")) {
    const fs::path stat = root / folder.path.relative_path() / "cpu.stat";
    Raise(usage.periods, ReadNumberAfter("nr_periods", stat));
    Raise(usage.throttled_periods, ReadNumberAfter("nr_throttled", stat));
    Raise(usage.throttled_seconds, folder.unified
                                       ? Seconds(ReadNumberAfter("throttled_usec", stat), 1e-6)
                                       : Seconds(ReadNumberAfter("throttled_time", stat), 1e-9));
    // The last is the process's own.
    if (folder.unified) usage.cpu_seconds = Seconds(ReadNumberAfter("usage_usec", stat), 1e-6);
  }
  if (usage.cpu_seconds) return;
  for (const CgroupFolder& folder : FindCgroupFolders(root, "cpuacct")) {
    if (folder.unified) continue;
    const fs::path path = root / folder.path.relative_path() / "cpuacct.usage";
    usage.cpu_seconds = Seconds(ReadNumber(path), 1e-9);
  }
}

void ReadMemory(const fs::path& root, CgroupUsage& usage) {
  for (const CgroupFolder& folder : FindCgroupFolders(root, "memory")) {
    const fs::path path = root / folder.path.relative_path();
    const bool v2 = folder.unified;
    const auto limit = ReadNumber(path / (v2 ? "memory.max" : "memory.limit_in_bytes"));
    if (limit && *limit < kNoLimitV1) {
      usage.memory_limit_bytes = std::min(*limit, usage.memory_limit_bytes.value_or(*limit));
    }
    const auto used = ReadNumber(path / (v2 ? "memory.current" : "memory.usage_in_bytes"));
    if (!used) continue;  // Of a hybrid's other hierarchy, or the root's.
    usage.memory_bytes = used;
    const auto droppable =
        ReadNumberAfter(v2 ? "inactive_file" : "total_inactive_file", path / "memory.stat");
    usage.working_set_bytes = *used - std::min(*used, droppable.value_or(0));
    const auto kills =
        ReadNumberAfter("oom_kill", path / (v2 ? "memory.events" : "memory.oom_control"));
    if (kills) usage.oom_kills = kills;
  }
}

}  // namespace

CgroupUsage ReadCgroupUsage(const fs::path& root) {
  CgroupUsage usage;
  ReadCpu(root, usage);
  ReadMemory(root, usage);
  return usage;
}

std::optional<ProcessUsage> ReadProcessUsage(const fs::path& root, pid_t pid) {
  const std::optional<std::string> text = ReadTextFile(root / "proc" / absl::StrCat(pid) / "stat");
  if (!text) return std::nullopt;
  // proc(5): "pid (name) state …"; the name may hold blanks and brackets. Fields count from 3 here.
  const size_t name_end = text->rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  const std::vector<absl::string_view> fields = absl::StrSplit(
      absl::string_view(*text).substr(name_end + 1), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  const auto field = [&](size_t number) {
    int64_t value = 0;
    return number - 3 < fields.size() && absl::SimpleAtoi(fields[number - 3], &value) ? value : 0;
  };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  ProcessUsage usage;
  usage.cpu_seconds = static_cast<double>(field(14) + field(15)) / ticks;
  usage.threads = field(20);
  usage.virtual_bytes = field(23);
  usage.resident_bytes = field(24) * sysconf(_SC_PAGESIZE);
  const auto boot = ReadNumberAfter("btime", root / "proc/stat");
  usage.start_time = static_cast<double>(boot.value_or(0)) + static_cast<double>(field(22)) / ticks;
  return usage;
}

DescriptorUsage ReadDescriptorUsage() {
  DescriptorUsage usage;
  if (DIR* const folder = opendir("/proc/self/fd")) {
    while (readdir(folder) != nullptr) ++usage.open;
    usage.open -= 3;  // ".", ".." and the folder's own.
    closedir(folder);
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) usage.most = static_cast<int64_t>(limit.rlim_cur);
  return usage;
}

}  // namespace millrace
