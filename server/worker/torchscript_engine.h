// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "server/worker/engine.h"

namespace millrace {

// Reads a TorchScript archive (what torch.jit.save writes) into host memory and finds the config's
// inputs among forward's arguments. `command` must outlive the engine. An error says what is wrong
// with the file or the config.
absl::StatusOr<std::unique_ptr<Engine>> OpenTorchScript(const LoadCommand& command, int model_fd,
                                                        Notes& notes);

}  // namespace millrace
