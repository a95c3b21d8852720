// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "server/base/unique_fd.h"

namespace millrace {

// Opens the file `path`, relative to the folder `root`, for reading. Follows symbolic links as long
// as they stay inside `root`. NOT_FOUND where there is none; PERMISSION_DENIED where a link or the
// path leads out of `root`, or the file may not be read.
absl::StatusOr<UniqueFd> OpenBeneath(const std::string& root, const std::string& path);

// Reads a file as OpenBeneath() opens it. OUT_OF_RANGE where it has more than `most` bytes.
absl::StatusOr<std::string> ReadBeneath(const std::string& root, const std::string& path,
                                        size_t most);

}  // namespace millrace
