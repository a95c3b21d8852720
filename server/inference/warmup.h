// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/inference/shape.h"

namespace millrace {

// An input to warm up with: zeros, or uniform random values (integers: 0 or 1).
struct WarmupInput {
  std::string name;
  Shape dims;  // Without the batch dimension; no -1.
  bool random = false;
};

// A request to run before a replica serves: `count` times at `rows` rows.
struct WarmupSample {
  int64_t rows = 1;
  int count = 2;
  std::vector<WarmupInput> inputs;
  bool declared = false;  // By the model's config: then a failure is an error of the load.
};

}  // namespace millrace
