// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <vector>

#include "absl/strings/string_view.h"

namespace millrace {

// A folder of cgroupfs that stands for a cgroup.
struct CgroupFolder {
  std::filesystem::path path;  // As the process sees it.
  bool unified = false;        // Of cgroup v2.
};

// The folders of this process's cgroup and of every ancestor that its mounts show, ancestors first,
// where `controller` ("cpu", "memory") may set limits; in cgroup v1 and v2, cgroup namespaces and
// hybrid set-ups. Reads procfs below `root`.
std::vector<CgroupFolder> FindCgroupFolders(const std::filesystem::path& root,
                                            absl::string_view controller);

}  // namespace millrace
