// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/memory.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/hardware/cgroup.h"
#include "server/hardware/number_file.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

int64_t LeftIn(const fs::path& folder, bool unified) {
  const auto limit = ReadNumber(folder / (unified ? "memory.max" : "memory.limit_in_bytes"));
  const auto used = ReadNumber(folder / (unified ? "memory.current" : "memory.usage_in_bytes"));
  if (!limit || !used) return kUnlimited;
  const int64_t droppable =
      ReadNumberAfter(unified ? "inactive_file" : "total_inactive_file", folder / "memory.stat")
          .value_or(0);
  return std::max<int64_t>(0, *limit - *used + std::min(droppable, *used));
}

}  // namespace

int64_t AvailableMemoryBytes(const fs::path& root) {
  const auto machine = ReadNumberAfter("MemAvailable", root / "proc/meminfo");
  int64_t least = machine ? *machine * 1024 : kUnlimited;
  for (const CgroupFolder& folder : FindCgroupFolders(root, "memory")) {
    least = std::min(least, LeftIn(root / folder.path.relative_path(), folder.unified));
  }
  return least;
}

int64_t OwnMemoryBytes(const fs::path& root, pid_t pid) {
  const fs::path process = root / "proc" / absl::StrCat(pid);
  std::optional<int64_t> kilobytes = ReadNumberAfter("Pss_Anon", process / "smaps_rollup");
  if (!kilobytes) kilobytes = ReadNumberAfter("RssAnon", process / "status");
  return kilobytes.value_or(0) * 1024;
}

}  // namespace millrace
