// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/pending_request.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// Bytes of one row of a batch's output; the whole output where there is no batch dimension.
size_t RowBytes(const OutputView& view, bool batched) {
  return batched && view.shape[0] > 0 ? view.data.size() / static_cast<size_t>(view.shape[0])
                                      : view.data.size();
}

}  // namespace

std::optional<PendingRequest::Answer> PendingRequest::AddRows(const ModelSignature& signature,
                                                              absl::Span<const OutputView> outputs,
                                                              int64_t batch_row, int64_t first_row,
                                                              int64_t rows,
                                                              const Timings& timings) {
  MutexLock lock(mutex_);
  if (!responder_.owed()) return std::nullopt;
  if (const absl::Status status = CopyRows(signature, outputs, batch_row, first_row, rows);
      !status.ok()) {
    response_ = Response::Error(status);
    return TakeAnswer(signature);
  }
  rows_done_ += rows;
  response_.timings = timings;
  if (rows_done_ < checked_.rows) return std::nullopt;
  return TakeAnswer(signature);
}

std::optional<PendingRequest::Answer> PendingRequest::Fail(const ModelSignature& signature,
                                                           const absl::Status& status) {
  MutexLock lock(mutex_);
  if (!responder_.owed()) return std::nullopt;
  response_ = Response::Error(status);
  return TakeAnswer(signature);
}

bool PendingRequest::answered() const {
  MutexLock lock(mutex_);
  return !responder_.owed();
}

void PendingRequest::AllocateOutputs(const ModelSignature& signature,
                                     absl::Span<const OutputView> outputs) {
  size_t total = 0;
  for (const int index : checked_.outputs) {
    const OutputView& view = outputs[index];
    OutputTensor output;
    output.name = signature.outputs()[index].name;
    output.data_type = view.data_type;
    output.shape = view.shape;
    if (signature.batched()) output.shape[0] = checked_.rows;
    total += RowBytes(view, signature.batched()) * static_cast<size_t>(checked_.rows);
    response_.outputs.push_back(std::move(output));
  }
  response_.memory = std::make_unique_for_overwrite<std::byte[]>(total);
  response_.memory_size = total;
  size_t offset = 0;
  for (size_t i = 0; i < response_.outputs.size(); ++i) {
    const size_t bytes = RowBytes(outputs[checked_.outputs[i]], signature.batched()) *
                         static_cast<size_t>(checked_.rows);
    response_.outputs[i].data = absl::MakeConstSpan(response_.memory.get() + offset, bytes);
    offset += bytes;
  }
}

absl::Status PendingRequest::CopyRows(const ModelSignature& signature,
                                      absl::Span<const OutputView> outputs, int64_t batch_row,
                                      int64_t first_row, int64_t rows) {
  if (response_.memory == nullptr) {
    AllocateOutputs(signature, outputs);
  }
  for (size_t i = 0; i < response_.outputs.size(); ++i) {
    const OutputView& view = outputs[checked_.outputs[i]];
    OutputTensor& output = response_.outputs[i];
    const size_t row_bytes = RowBytes(view, signature.batched());
    if (row_bytes * static_cast<size_t>(checked_.rows) != output.data.size()) {
      return absl::InternalError(absl::StrCat(
          "output '", output.name, "' of model '", signature.model_name(), "' has shape ",
          ToString(view.shape),
          " in one part of this request's batches and another in a part "
          "before; requests of more rows than max_batch_size need outputs of one shape"));
    }
    const size_t to = static_cast<size_t>(output.data.data() - response_.memory.get()) +
                      row_bytes * static_cast<size_t>(first_row);
    std::memcpy(response_.memory.get() + to,
                view.data.data() + row_bytes * static_cast<size_t>(batch_row),
                row_bytes * static_cast<size_t>(rows));
  }
  return absl::OkStatus();
}

PendingRequest::Answer PendingRequest::TakeAnswer(const ModelSignature& signature) {
  response_.model_name = signature.model_name();
  response_.model_version = signature.version();
  response_.id = id;
  response_.wants_timings = wants_timings;
  return {std::move(responder_), std::move(response_)};
}

}  // namespace millrace
