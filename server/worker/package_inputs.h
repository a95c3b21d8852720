// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/statusor.h"
#include "server/inference/data_type.h"

namespace millrace {

// The sizes that a dimension may have; one size where both are equal.
struct DimRange {
  static constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();

  int64_t least = 1;
  int64_t most = kUnbounded;

  bool is_open() const { return least != most; }
};

// An input that a package was compiled for.
struct PackageInput {
  DataType data_type = DataType::kInvalid;
  std::vector<DimRange> dims;  // All of them, the batch's included.
};

// Asks a package of the CPU that takes `count` inputs what they are. It says so only when it
// refuses one: so a child process gives it inputs that it can't take until its checks have named
// everything; the model itself never runs. UNIMPLEMENTED where its checks say something else.
// REQUIRES: this process has one thread, and the package hasn't run in it.
absl::StatusOr<std::vector<PackageInput>> AskForInputs(
    torch::inductor::AOTIModelContainerRunner& runner, size_t count);

}  // namespace millrace
