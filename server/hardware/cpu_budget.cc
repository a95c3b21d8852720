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

// A mounted cgroup hierarchy that can limit CPUs.
struct CgroupMount {
  std::string root;   // The cgroup that stands at the mount point.
  std::string point;  // The mount point.
  bool unified = false;
  bool limits_time = false;  // Has the controller `cpu`.
  bool limits_cpus = false;  // Has the controller `cpuset`.
};

// Undoes the kernel's \ooo for blanks and the like.
std::string Unescape(absl::string_view text) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) &&
        octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool HasItem(absl::string_view comma_separated, absl::string_view item) {
  for (absl::string_view each : absl::StrSplit(comma_separated, ',')) {
    if (each == item) return true;
  }
  return false;
}

// Parses a line of mountinfo (proc(5)): "36 35 98:0 /root /point rw [tags…] - type source options".
std::optional<CgroupMount> ParseMount(absl::string_view line) {
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(line, absl::MaxSplits(" - ", 1));
  const std::vector<absl::string_view> place = absl::StrSplit(halves.first, ' ');
  const std::vector<absl::string_view> system = absl::StrSplit(halves.second, ' ');
  if (place.size() < 5 || system.size() < 3) return std::nullopt;
  CgroupMount mount;
  mount.root = Unescape(place[3]);
  mount.point = Unescape(place[4]);
  mount.unified = system[0] == "cgroup2";
  if (!mount.unified && system[0] != "cgroup") return std::nullopt;
  mount.limits_time = mount.unified || HasItem(system[2], "cpu");
  mount.limits_cpus = mount.unified || HasItem(system[2], "cpuset");
  return mount;
}

// Finds the process's cgroup in the hierarchy of `mount`, in the text of /proc/self/cgroup
// (cgroups(7)): "4:cpu,cpuacct:/path" for v1, "0::/path" for v2.
std::optional<std::string> FindCgroup(absl::string_view text, const CgroupMount& mount) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const bool here = mount.unified ? fields[0] == "0" && fields[1].empty()
                                    : (mount.limits_time && HasItem(fields[1], "cpu")) ||
                                          (mount.limits_cpus && HasItem(fields[1], "cpuset"));
    if (here) return std::string(fields[2]);
  }
  return std::nullopt;
}

// The cgroup's path from the mount's root on. In a cgroup namespace either path can be relative to
// another place ("/../.."); then only what stands at the mount point is sure to be an ancestor.
std::string PathBelowMount(absl::string_view cgroup, absl::string_view mount_root) {
  if (absl::StrContains(cgroup, "/..") || absl::StrContains(mount_root, "/..")) return "";
  if (mount_root != "/" && absl::ConsumePrefix(&cgroup, mount_root) && !cgroup.empty() &&
      cgroup[0] != '/') {
    return "";
  }
  return std::string(cgroup);
}

// The directories, as the process sees them, of its cgroup and of every ancestor the mount shows.
std::vector<fs::path> CgroupFolders(const CgroupMount& mount, absl::string_view cgroup) {
  fs::path folder = mount.point;
  std::vector<fs::path> folders = {folder};
  for (absl::string_view name :
       absl::StrSplit(PathBelowMount(cgroup, mount.root), '/', absl::SkipEmpty())) {
    folder /= std::string(name);
    folders.push_back(folder);
  }
  return folders;
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

void ReadFolder(const fs::path& root, const fs::path& folder, const CgroupMount& mount,
                CgroupLimits& limits) {
  const fs::path real = root / folder.relative_path();
  if (mount.limits_time) {
    const double quota = ReadQuota(real, mount.unified);
    if (quota < limits.quota) {
      limits.quota = quota;
      limits.quota_folder = folder.string();
    }
  }
  if (!mount.limits_cpus) return;
  const std::vector<int> cpus = ReadCpuset(real, mount.unified);
  if (cpus.empty()) return;  // Not set here: the parent's applies.
  std::vector<int> narrowed = limits.cpus ? Intersect(*limits.cpus, cpus) : cpus;
  if (limits.cpus == narrowed) return;
  limits.cpus = std::move(narrowed);
  limits.cpus_folder = folder.string();
}

CgroupLimits ReadCgroupLimits(const fs::path& root) {
  CgroupLimits limits;
  const std::string cgroups = ReadTextFile(root / "proc/self/cgroup").value_or("");
  const std::string mounts = ReadTextFile(root / "proc/self/mountinfo").value_or("");
  for (absl::string_view line : absl::StrSplit(mounts, '\n')) {
    const std::optional<CgroupMount> mount = ParseMount(line);
    if (!mount || (!mount->limits_time && !mount->limits_cpus)) continue;
    const std::optional<std::string> cgroup = FindCgroup(cgroups, *mount);
    if (!cgroup) continue;
    for (const fs::path& folder : CgroupFolders(*mount, *cgroup)) {
      ReadFolder(root, folder, *mount, limits);
    }
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

int CpuBudget::slots() const {
  const double cores = std::floor(std::min(static_cast<double>(cpus.size()), quota));
  return std::max(1, static_cast<int>(cores));
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
