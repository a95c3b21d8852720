// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whatever InspectArchive() takes lies in the archive, one file after the other, under names that
// stay in a folder.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "server/base/check.h"
#include "server/worker/archive.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto entries = millrace::InspectArchive(size, [&](uint64_t offset, absl::Span<uint8_t> to) {
    MILLRACE_CHECK(offset <= size && to.size() <= size - offset, "Reads stay in the archive.");
    std::copy_n(data + offset, to.size(), to.begin());
    return true;
  });
  if (!entries.ok()) return 0;
  uint64_t packed = 0;
  for (const millrace::ArchiveEntry& entry : *entries) {
    const std::filesystem::path path = std::filesystem::path(entry.name).lexically_normal();
    MILLRACE_CHECK(path.is_relative() && *path.begin() != "..", "Names stay in a folder.");
    MILLRACE_CHECK(entry.begin < size && entry.packed_size < size, "Files lie in the archive.");
    packed += entry.packed_size;
  }
  MILLRACE_CHECK(packed <= size, "No byte is in two files.");
  return 0;
}
