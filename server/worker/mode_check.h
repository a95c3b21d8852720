// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/model.h"

namespace millrace {

// Whether `model` computes in BF16 about what its file computes as it is: loads the file a second
// time, runs both on random values and on the declared samples, and compares. FAILED_PRECONDITION
// where they differ by more than BF16 explains, with every seed, or where the model raises in BF16
// only; the message says where. Any other error means that it can't be judged so: the model raises
// on such values in any case, isn't the same twice, or differs in integers. REQUIRES: command.mode
// asks for BF16, and the model was prepared for the CPU.
absl::Status CheckBfloat16Agrees(const LoadCommand& command, int model_fd, Model& model);

}  // namespace millrace
