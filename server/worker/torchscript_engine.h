// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <memory>

#include "server/worker/engine.h"

namespace millrace {

// Reads a TorchScript archive (what torch.jit.save writes) into host memory. An error says what is
// wrong with the file.
absl::StatusOr<torch::jit::Module> ReadTorchScript(int model_fd);

// What the module's forward() takes, and returns. INVALID_ARGUMENT where it has none.
absl::StatusOr<c10::FunctionSchema> SchemaOf(const torch::jit::Module& module);

// Runs a module: finds the config's inputs among forward's arguments. `command` must outlive the
// engine. An error says what of the config doesn't fit.
absl::StatusOr<std::unique_ptr<Engine>> OpenTorchScript(const LoadCommand& command,
                                                        torch::jit::Module module, Notes& notes);

}  // namespace millrace
