// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/channel/layout.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/model.h"

namespace millrace {

// Runs batches that lie in shared memory: wraps the rows as tensors without copying them, and
// writes the outputs, or the error, behind them. Trusts no header: each is copied, then checked
// against the config and the buffer's size. Confined to the main thread; `command` and `model`
// must outlive it.
class BatchRunner {
 public:
  BatchRunner(const LoadCommand& command, Model& model) : command_(command), model_(model) {}

  // Runs the batch in `buffer` and leaves the outputs or the error there; true where it succeeded.
  // Blocks.
  bool Run(absl::Span<std::byte> buffer);

 private:
  absl::Status RunOrFail(absl::Span<std::byte> buffer, BatchHeader& header);

  const LoadCommand& command_;
  Model& model_;
};

}  // namespace millrace
