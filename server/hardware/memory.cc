// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/memory.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/hardware/cgroup.h"
#include "server/hardware/text_file.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number after `key` in lines such as "key: 12 kB" or "key 12"; nothing where there is none.
std::optional<int64_t> NumberAfter(absl::string_view key, const fs::path& path) {
  const std::string text = ReadTextFile(path).value_or("");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(": \t"), absl::SkipEmpty());
    int64_t number = 0;
    if (words.size() >= 2 && words[0] == key && absl::SimpleAtoi(words[1], &number)) return number;
  }
  return std::nullopt;
}

std::optional<int64_t> Number(const fs::path& path) {
  int64_t number = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadTextFile(path).value_or("")), &number)) {
    return std::nullopt;
  }
  return number;
}

int64_t LeftIn(const fs::path& folder, bool unified) {
  const auto limit = Number(folder / (unified ? "memory.max" : "memory.limit_in_bytes"));
  const auto used = Number(folder / (unified ? "memory.current" : "memory.usage_in_bytes"));
  if (!limit || !used) return kUnlimited;
  const int64_t droppable =
      NumberAfter(unified ? "inactive_file" : "total_inactive_file", folder / "memory.stat")
          .value_or(0);
  return std::max<int64_t>(0, *limit - *used + std::min(droppable, *used));
}

}  // namespace

int64_t AvailableMemoryBytes(const fs::path& root) {
  const auto machine = NumberAfter("MemAvailable", root / "proc/meminfo");
  int64_t least = machine ? *machine * 1024 : kUnlimited;
  for (const CgroupFolder& folder : FindCgroupFolders(root, "memory")) {
    least = std::min(least, LeftIn(root / folder.path.relative_path(), folder.unified));
  }
  return least;
}

int64_t OwnMemoryBytes(const fs::path& root, pid_t pid) {
  const fs::path process = root / "proc" / absl::StrCat(pid);
  std::optional<int64_t> kilobytes = NumberAfter("Pss_Anon", process / "smaps_rollup");
  if (!kilobytes) kilobytes = NumberAfter("RssAnon", process / "status");
  return kilobytes.value_or(0) * 1024;
}

}  // namespace millrace
