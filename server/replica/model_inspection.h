// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/sandbox_mode.h"
#include "server/inference/engine_kind.h"
#include "server/inference/inspection.h"

namespace millrace {

// How a model is inspected.
struct InspectionOptions {
  std::string worker_program;
  SandboxMode sandbox = SandboxMode::kOn;
  absl::Duration timeout = absl::Minutes(1);
  // Descriptors, such as eventfds: once one of them is readable, the inspection ends.
  std::vector<int> cancel_events = {};
  // What to try the model with where its file doesn't tell: dims without the batch dimension; -1 is
  // any size. Without a name an input goes by its place.
  std::vector<TensorSpec> inputs = {};
  int64_t max_batch_size = 0;  // The most rows that it shall take; 0: automatic.
};

// Finds out in a worker process what the model in `model_fd` takes and returns; on the CPU. Blocks,
// at most for the timeout. `name` is how the log calls the model. INVALID_ARGUMENT where the file
// is no model for `engine` or the inputs don't fit it, DEADLINE_EXCEEDED and UNAVAILABLE where the
// model hung or crashed, with what it was doing; CANCELLED where it was told to end; other errors
// say why it can't be served. Nothing is left of it in any case. Call on a thread that lives as
// long as this takes.
absl::StatusOr<Inspection> InspectModel(const InspectionOptions& options, EngineKind engine,
                                        const std::string& name, int model_fd);

}  // namespace millrace
