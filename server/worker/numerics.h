// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include "absl/status/status.h"
#include "server/channel/worker_protocol.h"

namespace millrace {

// Has libtorch compute as the config's `numerics` ask for, in this thread and in those that it
// starts from now on; on the CPU's side. What was asked for before, by whomever, holds no more:
// code that is loaded may set how denormal numbers are treated. UNIMPLEMENTED where the processor
// can't do so.
absl::Status SetNumerics(const LoadCommand& command);

// Has a run on `device` that begins now draw the same random numbers as any other.
void SeedRun(c10::Device device);

}  // namespace millrace
