// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace millrace {

// What a model version has done since it was loaded, in the terms of KServe's ModelStatistics.
struct ModelStatistics {
  // How often something happened, and how long it took in total.
  struct Timing {
    uint64_t count = 0;
    uint64_t ns = 0;
  };
  // The batches of one size.
  struct BatchSize {
    uint64_t rows = 0;
    Timing compute_input, compute_infer, compute_output;
  };

  int64_t last_inference_ms = 0;  // Since the epoch; 0 before the first inference.
  uint64_t inference_count = 0;   // Rows of successful requests.
  uint64_t execution_count = 0;   // Batches.
  Timing success, fail;
  Timing queue, compute_input, compute_infer, compute_output;  // Of successful requests.
  std::vector<BatchSize> batches;                              // Of sizes that have run, ascending.
};

}  // namespace millrace
