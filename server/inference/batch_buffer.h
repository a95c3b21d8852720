// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/inference/data_type.h"
#include "server/inference/row_shape.h"
#include "server/inference/shape.h"

namespace millrace {

// One output of a batch, as the replica left it. The bytes stay the buffer's.
struct OutputView {
  DataType data_type = DataType::kInvalid;
  Shape shape;  // With the batch dimension.
  absl::Span<const std::byte> data;
};

// Memory in which a batch is gathered for a replica and in which its outputs come back: an area
// per input, rows packed inside it without gaps. Thread-compatible; different rows may be written
// by different threads at once.
class BatchBuffer {
 public:
  virtual ~BatchBuffer() = default;

  // Lays the input areas out for up to `capacity` rows of `shape` and returns for how many there is
  // room, at least 1. What was there is gone. RESOURCE_EXHAUSTED where not even one row fits.
  virtual absl::StatusOr<int64_t> Open(const RowShape& shape, int64_t capacity) = 0;

  // The bytes of `count` rows of `input` from `row` on. REQUIRES: inside what Open() returned.
  virtual absl::Span<std::byte> InputRows(int input, int64_t row, int64_t count) = 0;

  // Says how many rows, from 0 on, the replica is to run.
  virtual void Seal(int64_t rows) = 0;
};

}  // namespace millrace
