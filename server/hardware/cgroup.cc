// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/cgroup.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/hardware/text_file.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

// A mounted cgroup hierarchy.
struct CgroupMount {
  std::string root;   // The cgroup that stands at the mount point.
  std::string point;  // The mount point.
  bool unified = false;
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
// Nothing where it is no hierarchy that has `controller`.
std::optional<CgroupMount> ParseMount(absl::string_view line, absl::string_view controller) {
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(line, absl::MaxSplits(" - ", 1));
  const std::vector<absl::string_view> place = absl::StrSplit(halves.first, ' ');
  const std::vector<absl::string_view> system = absl::StrSplit(halves.second, ' ');
  if (place.size() < 5 || system.size() < 3) return std::nullopt;
  CgroupMount mount;
  mount.root = Unescape(place[3]);
  mount.point = Unescape(place[4]);
  mount.unified = system[0] == "cgroup2";
  if (mount.unified || (system[0] == "cgroup" && HasItem(system[2], controller))) return mount;
  return std::nullopt;
}

// Finds the process's cgroup in the hierarchy of `mount`, in the text of /proc/self/cgroup
// (cgroups(7)): "4:cpu,cpuacct:/path" for v1, "0::/path" for v2.
std::optional<std::string> FindCgroup(absl::string_view text, const CgroupMount& mount,
                                      absl::string_view controller) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const bool here =
        mount.unified ? fields[0] == "0" && fields[1].empty() : HasItem(fields[1], controller);
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

}  // namespace

std::vector<CgroupFolder> FindCgroupFolders(const fs::path& root, absl::string_view controller) {
  std::vector<CgroupFolder> folders;
  const std::string cgroups = ReadTextFile(root / "proc/self/cgroup").value_or("");
  const std::string mounts = ReadTextFile(root / "proc/self/mountinfo").value_or("");
  for (absl::string_view line : absl::StrSplit(mounts, '\n')) {
    const std::optional<CgroupMount> mount = ParseMount(line, controller);
    if (!mount) continue;
    const std::optional<std::string> cgroup = FindCgroup(cgroups, *mount, controller);
    if (!cgroup) continue;
    fs::path folder = mount->point;
    folders.push_back({folder, mount->unified});
    for (absl::string_view name :
         absl::StrSplit(PathBelowMount(*cgroup, mount->root), '/', absl::SkipEmpty())) {
      folder /= std::string(name);
      folders.push_back({folder, mount->unified});
    }
  }
  return folders;
}

}  // namespace millrace
