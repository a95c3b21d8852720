// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/shared_batch_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"

namespace millrace {
namespace {

// Pages beyond this are given back when a smaller batch follows a big one.
constexpr size_t kKeptBytes = size_t{32} << 20;

absl::StatusOr<OutputView> ToView(const TensorHeader& header, const std::byte* begin,
                                  size_t buffer_bytes) {
  const auto bad = [](const auto&... pieces) {
    return absl::InternalError(absl::StrCat("The replica left an invalid output: ", pieces...));
  };
  OutputView view;
  view.data_type = static_cast<DataType>(header.data_type);
  const size_t element = ElementSize(view.data_type);
  if (header.data_type < 0 || header.data_type > 0xff || element == 0) {
    return bad("data type ", header.data_type);
  }
  if (header.rank < 0 || static_cast<size_t>(header.rank) > kMostDims) {
    return bad("rank ", header.rank);
  }
  view.shape.assign(header.dims.begin(), header.dims.begin() + header.rank);
  const std::optional<int64_t> elements = ElementCount(view.shape);
  if (!elements || header.bytes > buffer_bytes || header.offset > buffer_bytes - header.bytes ||
      header.bytes % element != 0 || header.bytes / element != static_cast<uint64_t>(*elements)) {
    return bad(header.bytes, " bytes at ", header.offset, " for shape ", ToString(view.shape));
  }
  view.data = absl::MakeConstSpan(begin + header.offset, header.bytes);
  return view;
}

}  // namespace

absl::StatusOr<int64_t> SharedBatchBuffer::Open(const RowShape& shape, int64_t capacity) {
  MILLRACE_CHECK(capacity >= 1 && shape.dims.size() <= kMostTensors, "A batch has rows.");
  size_t row_bytes = 0;
  for (const size_t bytes : shape.row_bytes) row_bytes += bytes;
  const size_t padding = shape.dims.size() * kAreaAlignment;
  const size_t room = bytes_ - kBatchHeaderBytes;
  if (row_bytes + padding > room) {
    return absl::ResourceExhaustedError(absl::StrCat("one row of input takes ", row_bytes,
                                                     " bytes, but a batch buffer of this "
                                                     "model holds ",
                                                     room - std::min(room, padding)));
  }
  if (row_bytes > 0) {
    const size_t fit = (room / 2 - std::min(room / 2, padding)) / row_bytes;
    capacity = std::min<int64_t>(capacity, std::max<int64_t>(1, static_cast<int64_t>(fit)));
  }
  shape_ = shape;
  area_begin_.clear();
  size_t offset = kBatchHeaderBytes;
  for (const size_t bytes : shape.row_bytes) {
    area_begin_.push_back(offset);
    offset = AlignUp(offset + bytes * static_cast<size_t>(capacity), kAreaAlignment);
  }
  inputs_end_ = offset;
  if (most_used_ > std::max(kKeptBytes, 2 * offset)) {
    const size_t keep = AlignUp(std::max(kKeptBytes, offset), kPageSize);
    madvise(begin_ + keep, bytes_ - keep, MADV_REMOVE);
    most_used_ = keep;
  }
  most_used_ = std::max(most_used_, inputs_end_);
  rows_ = capacity;
  return capacity;
}

absl::Span<std::byte> SharedBatchBuffer::InputRows(int input, int64_t row, int64_t count) {
  const size_t row_bytes = shape_.row_bytes[input];
  return {begin_ + area_begin_[input] + static_cast<size_t>(row) * row_bytes,
          static_cast<size_t>(count) * row_bytes};
}

void SharedBatchBuffer::Seal(int64_t rows) { rows_ = rows; }

void SharedBatchBuffer::WriteHeader(const ModelSignature& signature) {
  BatchHeader& to = *header();
  to.rows = rows_;
  to.input_count = static_cast<uint32_t>(signature.inputs().size());
  to.outputs_begin = inputs_end_;
  to.status_code = static_cast<int32_t>(absl::StatusCode::kInternal);
  to.message_bytes = 0;
  to.output_count = 0;
  for (size_t i = 0; i < signature.inputs().size(); ++i) {
    TensorHeader& tensor = to.inputs[i];
    tensor.data_type = static_cast<int32_t>(signature.inputs()[i].data_type);
    Shape dims = shape_.dims[i];
    if (signature.batched()) dims.insert(dims.begin(), rows_);
    MILLRACE_CHECK(dims.size() <= kMostDims, "The config was checked for the number of dims.");
    tensor.rank = static_cast<int32_t>(dims.size());
    std::copy(dims.begin(), dims.end(), tensor.dims.begin());
    tensor.offset = area_begin_[i];
    tensor.bytes = shape_.row_bytes[i] * static_cast<size_t>(rows_);
  }
}

absl::StatusOr<std::vector<OutputView>> SharedBatchBuffer::ReadOutputs() const {
  const BatchHeader* shared = header();
  const int32_t code = shared->status_code;
  if (code != 0) {
    const size_t size = std::min<size_t>(shared->message_bytes, kMostMessageBytes);
    const std::string message(shared->message.data(), size);
    const bool known = code > 0 && code <= static_cast<int32_t>(absl::StatusCode::kUnauthenticated);
    return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kInternal,
                        message);
  }
  const uint32_t count = shared->output_count;
  if (count > kMostTensors) {
    return absl::InternalError(absl::StrCat("The replica left ", count, " outputs."));
  }
  std::vector<OutputView> views;
  for (uint32_t i = 0; i < count; ++i) {
    const TensorHeader copy = shared->outputs[i];  // Before it is checked, so that it stays so.
    std::atomic_signal_fence(std::memory_order_acq_rel);  // The compiler doesn't read it again.
    absl::StatusOr<OutputView> view = ToView(copy, begin_, bytes_);
    if (!view.ok()) return view.status();
    views.push_back(*std::move(view));
  }
  return views;
}

int64_t SharedBatchBuffer::execute_nanoseconds() const {
  return std::max<int64_t>(0, header()->execute_nanoseconds);
}

}  // namespace millrace
