// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/inference/model_signature.h"

namespace millrace {

// What a model returned in one run: whole dims, and the rows that it was given; 0: no batch
// dimension.
struct ObservedRun {
  int64_t rows = 0;
  std::vector<TensorSpec> outputs;
};

// What a model returns, as a config declares it, from several runs: dims that weren't the same in
// all of them are -1, and the batch dimension is left out where there is one. FAILED_PRECONDITION
// where the outputs are no such thing: another number, type or rank from run to run, or an output
// without a row for each row of the inputs. REQUIRES: one run or more, all with rows or all
// without.
absl::StatusOr<std::vector<TensorSpec>> MergeOutputs(const std::vector<ObservedRun>& runs);

}  // namespace millrace
