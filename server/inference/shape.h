// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"

namespace millrace {

// What a model may have, since the header of its batches has room for no more.
inline constexpr size_t kMostTensors = 32;  // Inputs or outputs.
inline constexpr size_t kMostDims = 8;      // Of a tensor, with the batch dimension.

// The dimensions of a tensor, outermost first. In a signature -1 stands for "any".
using Shape = absl::InlinedVector<int64_t, 6>;

// The product of `dims` (1 for none); nullopt where a dimension is negative or the product
// doesn't fit into an int64_t.
std::optional<int64_t> ElementCount(absl::Span<const int64_t> dims);

// "[8,3,224,224]".
std::string ToString(absl::Span<const int64_t> dims);

}  // namespace millrace
