// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/sandbox.h"

namespace millrace {

// Gets everything ready before the model's first byte is read, and shuts this process in for good:
// privileges, memory, threads; has a fork look at the file and unpack a package into
// `command.folder`; then confines itself as a template, which may open the model and fork.
// INVALID_ARGUMENT where the file isn't what `command.mode.engine` runs. REQUIRES: this process has
// one thread.
absl::Status ShutInToOpen(const LoadCommand& command, int model_fd, Sandbox& sandbox);

}  // namespace millrace
