// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/channel/worker_protocol.h"

namespace millrace {

// Notes for the server's log: what was skipped or failed without harm.
using Notes = std::vector<std::string>;

// What a model returned, taken apart, in its own order.
struct Returned {
  std::vector<at::Tensor> tensors;
  std::vector<std::string> names;  // Of each, "" where it has none; or empty: none has one.
};

// A model file and what runs it. Throws nothing. Confined to the process's main thread; a copy
// made by fork() runs on, as long as the process had one thread and no device was touched.
class Engine {
 public:
  virtual ~Engine() = default;

  // Makes the model run on `device`: loads what isn't loaded yet, moves, freezes and optimises it.
  // Call once, before Run(); for a GPU in the process that will use it, never before its fork.
  virtual absl::Status Prepare(c10::Device device, Notes& notes) = 0;

  // Runs the model. `inputs` and the result are on the device, in the order of the config's inputs
  // and outputs. FAILED_PRECONDITION where the result doesn't fit the config's outputs by count,
  // kind or name; else the error says what the model threw.
  virtual absl::StatusOr<std::vector<at::Tensor>> Run(std::vector<at::Tensor> inputs) = 0;

  // As Run(), but returns whatever the model does: for a config that declares no outputs yet.
  virtual absl::StatusOr<Returned> RunUndeclared(std::vector<at::Tensor> inputs) = 0;

  // Has the model check its inputs in this process from its first run on, where it can but doesn't
  // by itself: then Run() fails with INVALID_ARGUMENT for inputs that it isn't made for.
  virtual void CheckInputs() {}

  // Bytes of the model's weights; 0 where unknown.
  virtual size_t weight_bytes() const = 0;
};

}  // namespace millrace
