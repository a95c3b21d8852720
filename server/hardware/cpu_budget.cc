// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/cpu_budget.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/hardware/cgroup.h"
#include "server/hardware/cpu_list.h"
#include "server/hardware/text_file.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

std::vector<int> Intersect(const std::vector<int>& a, const std::vector<int>& b) {
  std::vector<int> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both;
}

std::vector<int> ReadCpuList(const fs::path& path) {
  return ParseCpuList(ReadTextFile(path).value_or(""));
}

std::vector<int> ReadAffinity(const fs::path& root) {
  const std::string status = ReadTextFile(root / "proc/self/status").value_or("");
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (absl::ConsumePrefix(&line, "Cpus_allowed_list:")) return ParseCpuList(line);
  }
  return {};
}

// Divides, where both are sensible numbers.
double QuotaInCores(absl::string_view quota, absl::string_view period) {
  int64_t quota_us = 0;
  int64_t period_us = 0;
  if (!absl::SimpleAtoi(quota, &quota_us) || !absl::SimpleAtoi(period, &period_us)) return kNoQuota;
  if (quota_us <= 0 || period_us <= 0) return kNoQuota;
  return static_cast<double>(quota_us) / static_cast<double>(period_us);
}

double ReadQuota(const fs::path& folder, bool unified) {
  if (!unified) {
    return QuotaInCores(ReadTextFile(folder / "cpu.cfs_quota_us").value_or(""),
                        ReadTextFile(folder / "cpu.cfs_period_us").value_or(""));
  }
  const std::string text = ReadTextFile(folder / "cpu.max").value_or("");
  const std::pair<absl::string_view, absl::string_view> fields =
      absl::StrSplit(absl::StripAsciiWhitespace(text), absl::MaxSplits(' ', 1));
  return QuotaInCores(fields.first, fields.second);
}

std::vector<int> ReadCpuset(const fs::path& folder, bool unified) {
  if (unified) return ReadCpuList(folder / "cpuset.cpus.effective");
  std::vector<int> cpus = ReadCpuList(folder / "cpuset.effective_cpus");
  return cpus.empty() ? ReadCpuList(folder / "cpuset.cpus") : cpus;
}

// What the cgroups allow, and which folder said so.
struct CgroupLimits {
  double quota = kNoQuota;
  std::string quota_folder;
  std::optional<std::vector<int>> cpus;
  std::string cpus_folder;
};

CgroupLimits ReadCgroupLimits(const fs::path& root) {
  CgroupLimits limits;
  for (const CgroupFolder& folder : FindCgroupFolders(root, "cpu")) {
    const double quota = ReadQuota(root / folder.path.relative_path(), folder.unified);
    if (quota >= limits.quota) continue;
    limits.quota = quota;
    limits.quota_folder = folder.path.string();
  }
  for (const CgroupFolder& folder : FindCgroupFolders(root, "cpuset")) {
    const std::vector<int> cpus = ReadCpuset(root / folder.path.relative_path(), folder.unified);
    if (cpus.empty()) continue;  // Not set here: the parent's applies.
    std::vector<int> narrowed = limits.cpus ? Intersect(*limits.cpus, cpus) : cpus;
    if (limits.cpus == narrowed) continue;
    limits.cpus = std::move(narrowed);
    limits.cpus_folder = folder.path.string();
  }
  return limits;
}

std::string DescribeSource(const CpuBudget& budget, const CgroupLimits& limits, size_t online) {
  if (budget.quota < static_cast<double>(budget.cpus.size())) {
    return absl::StrCat("quota of ", budget.quota, budget.quota == 1 ? " core" : " cores",
                        " set in ", limits.quota_folder);
  }
  if (!budget.exclusive) return "every online CPU";
  const std::string share = absl::StrCat(budget.cpus.size(), " of ", online, " CPUs");
  if (limits.cpus == budget.cpus) {
    return absl::StrCat("cpuset of ", share, " set in ", limits.cpus_folder);
  }
  return absl::StrCat("affinity mask of ", share);
}

}  // namespace

double CpuBudget::cores() const { return std::min(static_cast<double>(cpus.size()), quota); }

int CpuBudget::slots() const { return std::max(1, static_cast<int>(std::floor(cores()))); }

int CpuBudget::most_slots() const { return std::max(1, static_cast<int>(std::ceil(cores()))); }

std::string DescribeBudget(const CpuBudget& budget) {
  const int slots = budget.slots();
  return absl::StrCat(slots, slots == 1 ? " core" : " cores", " on CPUs ",
                      FormatCpuList(budget.cpus), " (", budget.source, ")");
}

CpuBudget ReadCpuBudget(const fs::path& root) {
  CpuBudget budget;
  const std::vector<int> affinity = ReadAffinity(root);
  std::vector<int> online = ReadCpuList(root / "sys/devices/system/cpu/online");
  if (online.empty()) online = affinity.empty() ? budget.cpus : affinity;
  const CgroupLimits limits = ReadCgroupLimits(root);

  budget.cpus = online;
  for (const std::vector<int>& mask : {affinity, limits.cpus.value_or(online)}) {
    // A mask that leaves nothing can't be this process's own.
    const std::vector<int> narrowed = Intersect(budget.cpus, mask);
    if (!narrowed.empty()) budget.cpus = narrowed;
  }
  budget.quota = limits.quota;
  budget.exclusive = budget.cpus.size() < online.size();
  budget.source = DescribeSource(budget, limits, online.size());
  return budget;
}

}  // namespace millrace
