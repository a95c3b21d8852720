// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/rpc/infer_codec_oracle.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "grpcpp/support/slice.h"
#include "proto/grpc_service.pb.h"
#include "server/inference/request.h"
#include "server/rpc/infer_codec.h"

namespace millrace {
namespace {

using inference::InferParameter;
using inference::InferTensorContents;
using inference::ModelInferRequest;

bool HasKind(const ModelInferRequest& request, const char* key,
             std::initializer_list<InferParameter::ParameterChoiceCase> kinds) {
  const auto found = request.parameters().find(key);
  if (found == request.parameters().end()) return true;
  const auto kind = found->second.parameter_choice_case();
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

InferParameter Parameter(const ModelInferRequest& request, const char* key) {
  const auto found = request.parameters().find(key);
  return found == request.parameters().end() ? InferParameter() : found->second;
}

bool ParametersAreGood(const ModelInferRequest& request) {
  for (const auto& [key, value] : request.parameters()) {
    if (key == "headers" || key == "binary_data_output") return false;
    if (absl::StartsWith(key, "triton_") && key != "triton_enable_empty_final_response") {
      return false;
    }
  }
  for (const char* key : {"sequence_start", "sequence_end", "triton_enable_empty_final_response",
                          "millrace_timings"}) {
    if (!HasKind(request, key, {InferParameter::kBoolParam})) return false;
  }
  const InferParameter sequence = Parameter(request, "sequence_id");
  const InferParameter priority = Parameter(request, "priority");
  return HasKind(request, "sequence_id",
                 {InferParameter::kInt64Param, InferParameter::kStringParam}) &&
         HasKind(request, "priority",
                 {InferParameter::kInt64Param, InferParameter::kUint64Param}) &&
         HasKind(request, "timeout", {InferParameter::kInt64Param}) &&
         sequence.int64_param() == 0 && sequence.string_param().empty() &&
         priority.int64_param() >= 0 && Parameter(request, "timeout").int64_param() >= 0;
}

bool TensorParametersAreGood(const ModelInferRequest& request) {
  const auto shared = [](const auto& parameters) {
    return std::any_of(parameters.begin(), parameters.end(), [](const auto& entry) {
      return absl::StartsWith(entry.first, "shared_memory_");
    });
  };
  for (const auto& input : request.inputs()) {
    if (shared(input.parameters())) return false;
  }
  for (const auto& output : request.outputs()) {
    if (shared(output.parameters())) return false;
    const auto classes = output.parameters().find("classification");
    if (classes != output.parameters().end() && classes->second.int64_param() < 1) return false;
  }
  return true;
}

// The elements as `T`; nullopt where one doesn't fit or their number isn't `count`.
template <typename T, typename Field>
std::optional<std::string> Bytes(const Field& field, int64_t count) {
  if (field.size() != count) return std::nullopt;
  std::string bytes;
  for (const auto element : field) {
    const T narrow = static_cast<T>(element);
    if constexpr (std::is_integral_v<T>) {
      if (static_cast<decltype(element + 0)>(narrow) != element) return std::nullopt;
    }
    bytes.append(reinterpret_cast<const char*>(&narrow), sizeof(T));
  }
  return bytes;
}

std::optional<std::string> TypedBytes(const ModelInferRequest::InferInputTensor& input) {
  const InferTensorContents& contents = input.contents();
  __int128 count = 1;
  for (const int64_t dim : input.shape()) {
    if (dim < 0) return std::nullopt;
  }
  for (const int64_t dim : input.shape()) {
    count *= dim;
    if (count > std::numeric_limits<int64_t>::max()) count = std::numeric_limits<int64_t>::max();
  }
  const auto n = static_cast<int64_t>(count);
  const std::string& type = input.datatype();
  const int fields = (contents.bool_contents_size() > 0) + (contents.int_contents_size() > 0) +
                     (contents.int64_contents_size() > 0) + (contents.uint_contents_size() > 0) +
                     (contents.uint64_contents_size() > 0) + (contents.fp32_contents_size() > 0) +
                     (contents.fp64_contents_size() > 0) + (contents.bytes_contents_size() > 0);
  if (fields > 1 || (fields == 1 && n == 0)) return std::nullopt;
  if (type == "BOOL") return Bytes<bool>(contents.bool_contents(), n);
  if (type == "INT8") return Bytes<int8_t>(contents.int_contents(), n);
  if (type == "INT16") return Bytes<int16_t>(contents.int_contents(), n);
  if (type == "INT32") return Bytes<int32_t>(contents.int_contents(), n);
  if (type == "INT64") return Bytes<int64_t>(contents.int64_contents(), n);
  if (type == "UINT8") return Bytes<uint8_t>(contents.uint_contents(), n);
  if (type == "UINT16") return Bytes<uint16_t>(contents.uint_contents(), n);
  if (type == "UINT32") return Bytes<uint32_t>(contents.uint_contents(), n);
  if (type == "UINT64") return Bytes<uint64_t>(contents.uint64_contents(), n);
  if (type == "FP32") return Bytes<float>(contents.fp32_contents(), n);
  if (type == "FP64") return Bytes<double>(contents.fp64_contents(), n);
  if (type == "BYTES" && contents.bytes_contents_size() == n) {
    std::string bytes;
    for (const std::string& element : contents.bytes_contents()) {
      const auto length = static_cast<uint32_t>(element.size());
      bytes.append(reinterpret_cast<const char*>(&length), sizeof(length)).append(element);
    }
    return bytes;
  }
  return std::nullopt;
}

// The bytes of each input; nullopt where the request can't be served.
std::optional<std::vector<std::string>> Tensors(const ModelInferRequest& request) {
  int typed = 0;
  for (const auto& input : request.inputs()) {
    typed += input.has_contents();
  }
  std::vector<std::string> tensors;
  if (typed == 0) {
    if (request.raw_input_contents_size() != request.inputs_size()) return std::nullopt;
    tensors.assign(request.raw_input_contents().begin(), request.raw_input_contents().end());
    return tensors;
  }
  if (typed != request.inputs_size() || request.raw_input_contents_size() > 0) return std::nullopt;
  for (const auto& input : request.inputs()) {
    std::optional<std::string> bytes = TypedBytes(input);
    if (!bytes) return std::nullopt;
    tensors.push_back(*std::move(bytes));
  }
  return tensors;
}

// Parameters that are kept are few and short.
bool KeepsFew(const ModelInferRequest& request, const char* prefix) {
  int kept = 0;
  for (const auto& [name, value] : request.parameters()) {
    if (!absl::StartsWith(name, prefix)) continue;
    if (++kept > 32 || name.size() + value.string_param().size() > 256) return false;
  }
  return true;
}

bool WithinLimits(const ModelInferRequest& request) {
  return KeepsFew(request, "millrace_image_") && KeepsFew(request, "millrace_echo_") &&
         request.inputs_size() <= 256 && request.outputs_size() <= 256 &&
         request.raw_input_contents_size() <= 256 &&
         std::all_of(request.inputs().begin(), request.inputs().end(),
                     [](const auto& input) { return input.shape_size() <= 64; });
}

// How `ours` differs from the accepted request `theirs`.
std::string Difference(const Request& ours, const ModelInferRequest& theirs,
                       const std::vector<std::string>& tensors) {
  if (ours.requested_outputs.size() != static_cast<size_t>(theirs.outputs_size())) {
    return "number of outputs";
  }
  for (int i = 0; i < theirs.outputs_size(); ++i) {
    if (ours.requested_outputs[i].name != theirs.outputs(i).name()) return "an output's name";
    const auto classes = theirs.outputs(i).parameters().find("classification");
    const bool none = classes == theirs.outputs(i).parameters().end();
    if (ours.requested_outputs[i].classes != (none ? 0 : classes->second.int64_param())) {
      return "an output's classes";
    }
  }
  const int64_t timeout = Parameter(theirs, "timeout").int64_param();
  const std::optional<absl::Duration> limit =
      timeout == 0 ? std::nullopt : std::optional(absl::Microseconds(timeout));
  if (ours.timeout != limit) return "timeout";
  const InferParameter priority = Parameter(theirs, "priority");
  const uint64_t level = priority.has_uint64_param()
                             ? priority.uint64_param()
                             : static_cast<uint64_t>(priority.int64_param());
  if (ours.priority != level) return "priority";
  if (ours.wants_timings != Parameter(theirs, "millrace_timings").bool_param()) return "timings";
  if (ours.inputs.size() != tensors.size()) return "number of inputs";
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& input = theirs.inputs(static_cast<int>(i));
    if (ours.inputs[i].name != input.name()) return "an input's name";
    if (ours.inputs[i].data_type != input.datatype()) return "an input's data type";
    if (!std::equal(ours.inputs[i].shape.begin(), ours.inputs[i].shape.end(), input.shape().begin(),
                    input.shape().end())) {
      return "an input's shape";
    }
    std::string bytes(ours.inputs[i].payload.size(), '\0');
    ours.inputs[i].payload.CopyTo(
        0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size()));
    if (bytes != tensors[i]) return "an input's bytes";
  }
  return "";
}

}  // namespace

grpc::ByteBuffer Sliced(absl::string_view bytes, absl::Span<const size_t> sizes) {
  std::vector<grpc::Slice> slices;
  for (size_t turn = 0; !bytes.empty(); ++turn) {
    const size_t size = sizes.empty() ? bytes.size() : sizes[turn % sizes.size()];
    const absl::string_view part = bytes.substr(0, size);
    slices.emplace_back(part.data(), part.size());
    bytes.remove_prefix(part.size());
    if (part.empty()) sizes = {};  // Nobody gets on with empty slices only.
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::string Joined(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

Verdict CompareWithProtobuf(absl::string_view bytes, absl::Span<const size_t> sizes) {
  const google::protobuf::LogSilencer silencer;  // It logs texts that are not UTF-8.
  Verdict verdict;
  ModelInferRequest theirs;
  verdict.parsed = theirs.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  const DecodedRequest ours = DecodeInferRequest(Sliced(bytes, sizes));
  if (!verdict.parsed) {
    if (ours.status.ok()) verdict.disagreement = "libprotobuf refuses it, we take it";
    return verdict;
  }
  std::optional<std::vector<std::string>> tensors;
  if (WithinLimits(theirs) && ParametersAreGood(theirs) && TensorParametersAreGood(theirs)) {
    tensors = Tensors(theirs);
  }
  verdict.accepted = tensors.has_value();
  if (verdict.accepted != ours.status.ok()) {
    verdict.disagreement = absl::StrCat("expected ", verdict.accepted ? "OK" : "an error", ", got ",
                                        ours.status.ToString());
  } else if (absl::StrContains(ours.status.ToString(), "malformed")) {
    verdict.disagreement = "libprotobuf takes it, we say: malformed";
  } else if (WithinLimits(theirs) && (ours.request.model_name != theirs.model_name() ||
                                      ours.request.model_version != theirs.model_version() ||
                                      ours.request.id != theirs.id())) {
    verdict.disagreement = "model_name, model_version or id";
  } else if (verdict.accepted) {
    verdict.disagreement = Difference(ours.request, theirs, *tensors);
  }
  return verdict;
}

}  // namespace millrace
