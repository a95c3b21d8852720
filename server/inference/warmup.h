// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/inference/shape.h"

namespace millrace {

// An input to warm up with: rows of the warm-up data where `data_rows` says that there are some,
// taken in turn; else uniform random values (integers: 0 or 1), or zeros.
struct WarmupInput {
  std::string name;
  Shape dims;  // Without the batch dimension; no -1.
  bool random = false;
  std::string file = "";     // Where the data comes from, for whoever reads it.
  uint64_t data_offset = 0;  // Of its rows in the model's warm-up data.
  int64_t data_rows = 0;
};

// A request to run before a replica serves: `count` times at `rows` rows.
struct WarmupSample {
  int64_t rows = 1;
  int count = 2;
  std::vector<WarmupInput> inputs;
  bool declared = false;  // By the model's config: then a failure is an error of the load.
};

}  // namespace millrace
