// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/batch_runner.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/inference/shape.h"
#include "server/worker/model_error.h"
#include "server/worker/tensors.h"

namespace millrace {
namespace {

at::Tensor Wrap(std::byte* begin, absl::Span<const int64_t> dims, c10::ScalarType type) {
  return at::from_blob(begin, c10::IntArrayRef(dims.data(), dims.size()), at::TensorOptions(type));
}

// Wraps the input that `header`, a copy, describes.
absl::StatusOr<at::Tensor> WrapInput(const TensorSpec& spec, const TensorHeader& header,
                                     int64_t batch_rows, absl::Span<std::byte> buffer) {
  const auto error = [&](const auto&... pieces) {
    return absl::InternalError(
        absl::StrCat("input '", spec.name, "' came to the worker with ", pieces...));
  };
  if (header.data_type != static_cast<int32_t>(spec.data_type)) {
    return error("data type ", header.data_type, "; expected ",
                 std::string(WireName(spec.data_type)));
  }
  Shape expected = spec.dims;
  if (batch_rows > 0) expected.insert(expected.begin(), batch_rows);
  if (header.rank < 0 || static_cast<size_t>(header.rank) > kMostDims) {
    return error("rank ", header.rank);
  }
  const auto dims = absl::MakeConstSpan(header.dims).first(static_cast<size_t>(header.rank));
  const bool fits = std::equal(expected.begin(), expected.end(), dims.begin(), dims.end(),
                               [](int64_t want, int64_t have) { return want < 0 || want == have; });
  const std::optional<int64_t> elements = ElementCount(dims);
  if (!fits || !elements) return error("shape ", ToString(dims), "; expected ", ToString(expected));
  const size_t element_size = ElementSize(spec.data_type);
  if (header.bytes > buffer.size() || header.offset > buffer.size() - header.bytes ||
      header.offset % kAreaAlignment != 0 || header.bytes % element_size != 0 ||
      header.bytes / element_size != static_cast<uint64_t>(*elements)) {
    return error(header.bytes, " bytes at ", header.offset, " for shape ", ToString(dims));
  }
  return Wrap(buffer.data() + header.offset, dims, *ToScalarType(spec.data_type));
}

absl::StatusOr<std::vector<at::Tensor>> WrapInputs(const LoadCommand& command,
                                                   const BatchHeader& shared, int64_t rows,
                                                   absl::Span<std::byte> buffer) {
  const bool batched = command.max_batch_size > 0;
  if (shared.input_count != command.inputs.size() || rows < 1 ||
      (batched && rows > command.max_batch_size)) {
    return absl::InternalError(absl::StrCat("A batch of ", rows, " rows and ", shared.input_count,
                                            " inputs came to the worker."));
  }
  std::vector<at::Tensor> inputs;
  inputs.reserve(command.inputs.size());
  for (size_t i = 0; i < command.inputs.size(); ++i) {
    const TensorHeader copy = shared.inputs[i];
    MILLRACE_ASSIGN_OR_RETURN(at::Tensor input,
                              WrapInput(command.inputs[i], copy, batched ? rows : 0, buffer));
    inputs.push_back(std::move(input));
  }
  return inputs;
}

// Copies `tensor` to `begin`, rows packed.
void Write(const at::Tensor& tensor, std::byte* begin) {
  if (tensor.is_contiguous() && !tensor.is_neg()) {
    std::memcpy(begin, tensor.const_data_ptr(), tensor.nbytes());
  } else {
    Wrap(begin, {tensor.sizes().data(), tensor.sizes().size()}, tensor.scalar_type()).copy_(tensor);
  }
}

// Places the outputs from `begin` on.
absl::Status WriteOutputs(const std::vector<at::Tensor>& outputs, size_t begin,
                          absl::Span<std::byte> buffer, BatchHeader& header) {
  size_t end = begin;
  for (size_t i = 0; i < outputs.size(); ++i) {
    TensorHeader placed = {.data_type = static_cast<int32_t>(*ToDataType(outputs[i].scalar_type())),
                           .rank = static_cast<int32_t>(outputs[i].dim()),
                           .dims = {},
                           .offset = AlignUp(end, kAreaAlignment),
                           .bytes = outputs[i].nbytes()};
    std::copy(outputs[i].sizes().begin(), outputs[i].sizes().end(), placed.dims.begin());
    end = placed.offset + placed.bytes;
    header.outputs[i] = placed;
  }
  if (begin > buffer.size() || end > buffer.size()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the outputs need ", end - begin, " bytes, but the batch buffer has ",
        buffer.size() - std::min(begin, buffer.size()), " left; send fewer rows, or smaller ones"));
  }
  return CatchModelErrors([&]() -> absl::Status {
    for (size_t i = 0; i < outputs.size(); ++i) {
      Write(outputs[i], buffer.data() + header.outputs[i].offset);
    }
    return absl::OkStatus();
  });
}

}  // namespace

bool BatchRunner::Run(absl::Span<std::byte> buffer) {
  BatchHeader& header = *reinterpret_cast<BatchHeader*>(buffer.data());
  const absl::Status status = RunOrFail(buffer, header);
  // A result that doesn't fit the config is no fault of the request's.
  const absl::StatusCode code =
      absl::IsFailedPrecondition(status) ? absl::StatusCode::kInternal : status.code();
  const std::string message = Shortened(std::string(status.message()), kMostMessageBytes);
  std::memcpy(header.message.data(), message.data(), message.size());
  header.message_bytes = static_cast<uint32_t>(message.size());
  header.output_count = status.ok() ? static_cast<uint32_t>(command_.outputs.size()) : 0;
  header.status_code = static_cast<int32_t>(code);
  return status.ok();
}

absl::Status BatchRunner::RunOrFail(absl::Span<std::byte> buffer, BatchHeader& header) {
  const int64_t rows = header.rows;
  const size_t outputs_begin = header.outputs_begin;
  if (outputs_begin < kBatchHeaderBytes || outputs_begin > buffer.size()) {
    return absl::InternalError("A batch came to the worker without room for its outputs.");
  }
  MILLRACE_ASSIGN_OR_RETURN(std::vector<at::Tensor> inputs,
                            WrapInputs(command_, header, rows, buffer));
  const absl::Time start = Clock::Real().Now();
  absl::StatusOr<std::vector<at::Tensor>> outputs = model_.Run(std::move(inputs), rows);
  header.execute_nanoseconds = absl::ToInt64Nanoseconds(Clock::Real().Now() - start);
  if (!outputs.ok()) return outputs.status();
  return WriteOutputs(*outputs, outputs_begin, buffer, header);
}

}  // namespace millrace
