// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/channel/layout.h"
#include "server/inference/batch_buffer.h"
#include "server/inference/model_signature.h"

namespace millrace {

// A batch buffer in shared memory, as the server sees it. The server keeps its own copy of the
// input layout and validates a copy of every header that the worker wrote: a worker may scribble
// over the buffer and does no harm beyond its batch.
class SharedBatchBuffer final : public BatchBuffer {
 public:
  SharedBatchBuffer(std::byte* begin, size_t bytes, uint32_t index)
      : begin_(begin), bytes_(bytes), index_(index) {}

  // Which of the model's buffers this is.
  uint32_t index() const { return index_; }

  // BatchBuffer. Inputs take at most half of the areas' bytes where there is more than one row.
  absl::StatusOr<int64_t> Open(const RowShape& shape, int64_t capacity) override;
  absl::Span<std::byte> InputRows(int input, int64_t row, int64_t count) override;
  void Seal(int64_t rows) override;

  // Writes what the worker needs to know of the inputs. Call after Seal(), before posting.
  // REQUIRES: the signature's inputs are those that Open() got the shape of.
  void WriteHeader(const ModelSignature& signature);

  // What the worker made of the batch: its outputs, or the status it ended with. INTERNAL where
  // the header makes no sense. The views hold until the buffer is opened again.
  absl::StatusOr<std::vector<OutputView>> ReadOutputs() const;

  // The forward pass alone, by the worker's clock; not to be trusted, only reported.
  int64_t execute_nanoseconds() const;

 private:
  BatchHeader* header() const { return reinterpret_cast<BatchHeader*>(begin_); }

  std::byte* const begin_;
  const size_t bytes_;
  const uint32_t index_;
  RowShape shape_;
  std::vector<size_t> area_begin_;  // Per input, from the buffer's start.
  size_t inputs_end_ = 0;
  int64_t rows_ = 0;
  size_t most_used_ = 0;  // How far pages may have been touched since they were last given back.
};

}  // namespace millrace
