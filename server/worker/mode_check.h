// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "server/channel/worker_protocol.h"
#include "server/inference/execution_mode.h"
#include "server/worker/model.h"

namespace millrace {

// "BF16", "channels_last" or both, where `mode` computes otherwise than the file says; else empty.
std::string ModeName(const ExecutionMode& mode);

// Whether `model` computes in its mode about what its file computes as it is: loads the file a
// second time, runs both on random values and on the declared samples, and compares.
// FAILED_PRECONDITION where they differ by more than rounding explains, which is coarser in BF16,
// with every seed, or where the model raises in its mode only; the message says where. Any other
// error means that it can't be judged so: the model raises on such values in any case, isn't the
// same twice, or differs in integers. REQUIRES: ModeName() of command.mode isn't empty, and the
// model was prepared for the CPU.
absl::Status CheckModeAgrees(const LoadCommand& command, int model_fd, Model& model);

}  // namespace millrace
