// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace millrace {

// A file inside an archive.
struct ArchiveEntry {
  std::string name;
  uint64_t begin = 0;        // Of its local header, from the archive's start.
  uint64_t packed_size = 0;  // Bytes in the archive,
  uint64_t size = 0;         // and once they are unpacked.
};

// Reads exactly `to.size()` bytes at `offset`; false where it can't.
using ReadAt = absl::FunctionRef<bool(uint64_t offset, absl::Span<uint8_t> to)>;

// Lists the files of a zip archive of `size` bytes, the format of TorchScript files and of
// AOTInductor packages, by what its directory says; nothing is unpacked. INVALID_ARGUMENT with what
// is wrong where the archive is more or less than a plain one, so that no other reader can see
// another archive in it: cut off or with bytes behind it; entries that overlap, lie outside, occur
// twice, are encrypted or packed in an unknown way; names that are absolute, climb (`..`) or hold
// control characters; or too much of anything: files, or bytes when unpacked.
absl::StatusOr<std::vector<ArchiveEntry>> InspectArchive(uint64_t size, ReadAt read);

}  // namespace millrace
