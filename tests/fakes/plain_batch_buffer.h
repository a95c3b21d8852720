// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/inference/batch_buffer.h"

namespace millrace {

// A batch buffer in plain memory. What an earlier batch left is overwritten when it is opened, as
// another batch would do.
class PlainBatchBuffer final : public BatchBuffer {
 public:
  explicit PlainBatchBuffer(size_t most_row_bytes = 1 << 20) : most_row_bytes_(most_row_bytes) {}

  absl::StatusOr<int64_t> Open(const RowShape& shape, int64_t capacity) override {
    EXPECT_FALSE(runs) << "A buffer is opened while a replica runs it.";
    for (const size_t bytes : shape.row_bytes) {
      if (bytes > most_row_bytes_) return absl::ResourceExhaustedError("A row is too large.");
    }
    Scribble(outputs);
    shape_ = shape;
    areas_.clear();
    for (const size_t bytes : shape.row_bytes) {
      areas_.emplace_back(bytes * static_cast<size_t>(capacity), std::byte{0xab});
    }
    sealed_rows = -1;
    return capacity;
  }

  absl::Span<std::byte> InputRows(int input, int64_t row, int64_t count) override {
    const size_t row_bytes = shape_.row_bytes[static_cast<size_t>(input)];
    std::vector<std::byte>& area = areas_[static_cast<size_t>(input)];
    const size_t begin = static_cast<size_t>(row) * row_bytes;
    const size_t size = static_cast<size_t>(count) * row_bytes;
    EXPECT_LE(begin + size, area.size());
    return {area.data() + begin, size};
  }

  void Seal(int64_t rows) override { sealed_rows = rows; }

  const RowShape& shape() const { return shape_; }

  // What a dying worker may do.
  void ScribbleOverInputs() {
    for (std::vector<std::byte>& area : areas_) Scribble(area);
  }

  int64_t sealed_rows = -1;        // -1: not sealed since it was opened.
  std::atomic<bool> runs = false;  // A replica runs it.
  std::vector<std::byte> outputs;  // Where a replica puts them.

 private:
  static void Scribble(std::vector<std::byte>& bytes) {
    std::fill(bytes.begin(), bytes.end(), std::byte{0xcd});
  }

  const size_t most_row_bytes_;
  RowShape shape_;
  std::vector<std::vector<std::byte>> areas_;
};

}  // namespace millrace
