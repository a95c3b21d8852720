// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "absl/strings/string_view.h"

namespace millrace {

// Small files of procfs and cgroupfs that hold numbers. Nothing where there is no such file, or no
// number in it.

// The number that is all of a file.
std::optional<int64_t> ReadNumber(const std::filesystem::path& path);

// The number after `key` in lines such as "key: 12 kB" or "key 12".
std::optional<int64_t> ReadNumberAfter(absl::string_view key, const std::filesystem::path& path);

}  // namespace millrace
