// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/sandbox_mode.h"

namespace millrace {

// An input as the command line says it, checked but for what needs the model.
struct InputFlag {
  std::string name;           // Empty: by its place.
  std::vector<int64_t> dims;  // Without the batch dimension; -1 is any size.
  std::string data_type;      // "FP32".
};

// The command `inspect`: a model to find out about.
struct InspectConfig {
  std::string model;              // Its file.
  std::vector<InputFlag> inputs;  // Where the file doesn't tell.
  int64_t max_batch_size = 0;     // 0: automatic.
  std::string into;               // The folder to write it to; empty: nothing is written.
  bool force = false;             // Replace what is there.
  bool json = false;
  absl::Duration timeout = absl::Minutes(1);
  std::string worker_program;  // Empty: millrace-worker beside this program.
  SandboxMode sandbox = SandboxMode::kOn;
};

}  // namespace millrace
