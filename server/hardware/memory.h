// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>

namespace millrace {

// Bytes that this process and its children may still take before the kernel runs out of memory or
// kills one of them: of the machine's available memory and of what the memory cgroups above allow
// (v1 and v2), the least. Files' pages that can be dropped count as free. What is missing or
// unreadable doesn't limit: the largest number where nothing is known. Reads procfs and cgroupfs
// below `root`.
int64_t AvailableMemoryBytes(const std::filesystem::path& root);

// Bytes of a process's own memory, what it shares with other processes counted by its share; 0
// where that can't be read. Pages of files don't count.
int64_t OwnMemoryBytes(const std::filesystem::path& root, pid_t pid);

}  // namespace millrace
