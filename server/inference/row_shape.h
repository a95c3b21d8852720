// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "server/inference/shape.h"

namespace millrace {

// The shape of one row of every input, in the model's order: requests may share a batch when
// theirs are equal. Without a batch dimension a row is the whole tensor.
struct RowShape {
  absl::InlinedVector<Shape, 1> dims;        // Without the batch dimension; no -1.
  absl::InlinedVector<size_t, 1> row_bytes;  // Bytes of one row.

  friend bool operator==(const RowShape& a, const RowShape& b) { return a.dims == b.dims; }

  template <typename H>
  friend H AbslHashValue(H hash, const RowShape& shape) {
    return H::combine(std::move(hash), shape.dims);
  }
};

}  // namespace millrace
