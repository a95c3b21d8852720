// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace millrace {

// Reads a small file such as procfs and sysfs have; at most 1 MiB of it. Nothing when it is
// missing or may not be read, which is no error: not every kernel and container shows every file.
std::optional<std::string> ReadTextFile(const std::filesystem::path& path);

}  // namespace millrace
