// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/pending_request.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/inference/finite_copy.h"

namespace millrace {
namespace {

// The largest answer: 2 GiB, beyond which no message can be sent anyway.
constexpr size_t kMostAnswerBytes = size_t{2} << 30;

// Whether two parts of an output differ in nothing but their number of rows.
bool SameRows(const Shape& a, const Shape& b, bool batched) {
  const int skip = batched ? 1 : 0;
  return std::equal(a.begin() + skip, a.end(), b.begin() + skip, b.end());
}

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
    const int64_t non_finite = response_.non_finite;
    response_ = Response::Error(status);
    response_.non_finite = non_finite;
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
  // A copy that shares no memory with `status`: the answer goes to other threads, and absl::Status
  // counts its references in a library that ThreadSanitizer can't look into.
  response_ = Response::Error(absl::Status(status.code(), status.message()));
  return TakeAnswer(signature);
}

absl::Status PendingRequest::AllocateOutputs(const ModelSignature& signature,
                                             absl::Span<const OutputView> outputs) {
  const auto rows = static_cast<size_t>(checked_.rows);
  size_t total = 0;
  bool too_large = false;
  for (const int index : checked_.outputs) {
    const OutputView& view = outputs[index];
    OutputTensor output;
    output.name = signature.outputs()[index].name;
    output.data_type = view.data_type;
    output.shape = view.shape;
    if (signature.batched()) output.shape[0] = checked_.rows;
    size_t bytes = 0;
    too_large |= __builtin_mul_overflow(RowBytes(view, signature.batched()), rows, &bytes) ||
                 __builtin_add_overflow(total, bytes, &total);
    response_.outputs.push_back(std::move(output));
  }
  // A few bytes of input may ask for more output than there is memory.
  if (!too_large && total <= kMostAnswerBytes) {
    response_.memory.reset(new (std::nothrow) std::byte[total]);
  }
  if (response_.memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("there is no memory for the answer to ", rows,
                                                     " rows of model '", signature.model_name(),
                                                     "'; send fewer rows in one request"));
  }
  response_.memory_size = total;
  size_t offset = 0;
  for (size_t i = 0; i < response_.outputs.size(); ++i) {
    const size_t bytes = RowBytes(outputs[checked_.outputs[i]], signature.batched()) * rows;
    response_.outputs[i].data = absl::MakeConstSpan(response_.memory.get() + offset, bytes);
    offset += bytes;
  }
  return absl::OkStatus();
}

absl::Status PendingRequest::CopyRows(const ModelSignature& signature,
                                      absl::Span<const OutputView> outputs, int64_t batch_row,
                                      int64_t first_row, int64_t rows) {
  if (response_.memory == nullptr) {
    MILLRACE_RETURN_IF_ERROR(AllocateOutputs(signature, outputs));
  }
  for (size_t i = 0; i < response_.outputs.size(); ++i) {
    const OutputView& view = outputs[checked_.outputs[i]];
    OutputTensor& output = response_.outputs[i];
    const size_t row_bytes = RowBytes(view, signature.batched());
    if (!SameRows(view.shape, output.shape, signature.batched()) ||
        row_bytes * static_cast<size_t>(checked_.rows) != output.data.size()) {
      return absl::InternalError(absl::StrCat(
          "output '", output.name, "' of model '", signature.model_name(), "' has shape ",
          ToString(view.shape),
          " in one part of this request's batches and another in a part "
          "before; requests of more rows than max_batch_size need outputs of one shape"));
    }
    if (row_bytes == 0) continue;
    const absl::Span<const std::byte> from = view.data.subspan(
        row_bytes * static_cast<size_t>(batch_row), row_bytes * static_cast<size_t>(rows));
    MILLRACE_RETURN_IF_ERROR(CopyTo(i, signature, from, first_row, rows));
  }
  return absl::OkStatus();
}

absl::Status PendingRequest::CopyTo(size_t output, const ModelSignature& signature,
                                    absl::Span<const std::byte> from, int64_t first_row,
                                    int64_t rows) {
  const OutputTensor& whole = response_.outputs[output];
  const size_t row_bytes = from.size() / static_cast<size_t>(rows);
  std::byte* const to = response_.memory.get() + (whole.data.data() - response_.memory.get()) +
                        row_bytes * static_cast<size_t>(first_row);
  const NonFinite policy = signature.outputs()[checked_.outputs[output]].non_finite;
  if (policy == NonFinite::kPass) {
    std::memcpy(to, from.data(), from.size());
    return absl::OkStatus();
  }
  const int64_t count = CopyCountingNonFinite(whole.data_type, from, to);
  response_.non_finite += count;
  if (count == 0 || policy == NonFinite::kFlag) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "output '", whole.name, "' of model '", signature.model_name(), "' has ", count,
      count == 1 ? " value that is" : " values that are",
      " NaN or infinite, which its config refuses (millrace.numerics.non_finite); check what the "
      "request brings"));
}

PendingRequest::Answer PendingRequest::TakeAnswer(const ModelSignature& signature) {
  answered_.store(true, std::memory_order_release);
  response_.parameters = std::move(echoes);
  if (response_.non_finite > 0) {
    response_.parameters.push_back({"millrace_non_finite", response_.non_finite});
  }
  if (response_.status.ok() && needs_preparation_) filler().Annotate(response_.parameters);
  if (response_.status.ok() && !checked_.classes.empty()) {
    Classify(checked_.classes, signature.batched(), response_);
  }
  response_.model_name = signature.model_name();
  response_.model_version = signature.version();
  response_.id = id;
  response_.wants_timings = wants_timings;
  response_.trace = std::move(trace);
  return {std::move(responder_), std::move(response_)};
}

}  // namespace millrace
