// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "server/channel/worker_protocol.h"

namespace millrace {

// Trying a model on the same values twice, in two ways. These throw what libtorch throws.

// What came of it.
struct Comparison {
  enum class Verdict {
    kSame,       // But for rounding.
    kDifferent,  // Floating-point values lie further apart.
    kUnclear,    // Shapes or integers differ, which a rounding can bring about.
  };

  Verdict verdict = Verdict::kSame;
  std::string where;  // Which output, and by how much.
};

// The seeds of the inputs with which a model is judged: once may be chance.
inline constexpr uint64_t kJudgingSeeds[] = {1, 2, 3};

// How far results may lie apart that were computed in `type` in two ways, as a part of the largest
// of the tensor: sums are taken in another order, and the layers after them make the difference
// larger.
double RoundingOf(c10::ScalarType type);

// Compares the outputs of two runs. Floating-point values may differ by `rounding`, as a part of
// the largest of the tensor; where that is negative, by what RoundingOf() says of their type.
Comparison CompareOutputs(const LoadCommand& command, const std::vector<at::Tensor>& a,
                          const std::vector<at::Tensor>& b, double rounding = -1);

}  // namespace millrace
