// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/inference/engine_kind.h"

namespace millrace {

// What can be seen of a file without running or unpacking it.
struct FileGlance {
  // How much of a file and of a pickle is looked at.
  static constexpr size_t kMostBytes = size_t{64} << 10;

  uint64_t size = 0;
  std::string beginning;           // At most kMostBytes.
  std::vector<std::string> names;  // Of the files in the archive that it is; empty: it is none.
  std::string pickle;              // The beginning of the archive's data.pkl; empty: there is none.
};

// Whether it is an archive as torch.jit.save writes them.
bool IsTorchScript(const FileGlance& glance);

// Says of a file that is plainly something else than `engine` runs what it is and how to get what
// is needed from it: INVALID_ARGUMENT. OK of any other file, which may still be broken.
absl::Status CheckFileKind(EngineKind engine, const FileGlance& glance);

}  // namespace millrace
