// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {

// The SHA-256 of a file, read at positions, in small hex digits. Blocks on the disk.
absl::StatusOr<std::string> Sha256Of(int fd);

// Holds a model's file to the manifest SHA256SUMS, as sha256sum writes it, of the version's folder
// (`<hash>  model.pt`) and of the model's (`<hash>  1/model.pt`); each counts where it is there,
// and must list the file. `path` is the file's, relative to the folder `repository`, and `fd` the
// file, read at positions. FAILED_PRECONDITION says what differs. Blocks on the disk.
absl::Status CheckManifests(const std::string& repository, const std::string& path, int fd);

}  // namespace millrace
