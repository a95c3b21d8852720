// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "server/channel/worker_protocol.h"

namespace millrace {

// Looks at the archive that a model's file is before libtorch sees it; see InspectArchive() and
// CheckFileKind(). An AOTInductor package is unpacked into `command.folder`, its model's files side
// by side. Reads at positions of `model_fd`, which stays the caller's. INVALID_ARGUMENT says what
// is wrong with it. For a process of its own that may fill the folder: what crashes here crashes
// there.
absl::Status InspectModelFile(const LoadCommand& command, int model_fd);

// The error for a file that isn't what `engine` takes: `status` and what was expected.
absl::Status UnreadableFile(EngineKind engine, const absl::Status& status);

}  // namespace millrace
