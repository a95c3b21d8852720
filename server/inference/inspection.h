// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/inference/engine_kind.h"
#include "server/inference/model_signature.h"

namespace millrace {

// What was found out about a model by reading its file and running it: enough for a config. Plain
// values.
struct Inspection {
  EngineKind engine = EngineKind::kTorchScript;
  std::string libtorch_version;  // Of the libtorch that ran it.
  std::string instruction_set;   // That it was compiled for; empty: for none.
  // What the file says of the model's arguments: "forward(Tensor x, Tensor? mask=None)".
  std::string arguments;
  // By the model's own names, or by place (INPUT__0, OUTPUT__0) where it has none. Dims are without
  // the batch dimension, where there is one; -1 is any size.
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  int64_t max_batch_size = 0;  // The most rows to give it; 0: it has no batch dimension.
  // Whether the file itself told the type and the shape of every input, so that nobody had to.
  bool is_certain = false;
  // FAILED_PRECONDITION where rows get other results in a batch than alone; another error where
  // that couldn't be judged.
  absl::Status batching;
  std::vector<std::string> notes;  // What else whoever serves it should know.
};

}  // namespace millrace
