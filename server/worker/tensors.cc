// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/check.h"
#include "server/inference/shape.h"

namespace millrace {
namespace {

constexpr std::array<std::pair<DataType, c10::ScalarType>, 13> kTypes = {{
    {DataType::kBool, c10::ScalarType::Bool},
    {DataType::kUint8, c10::ScalarType::Byte},
    {DataType::kUint16, c10::ScalarType::UInt16},
    {DataType::kUint32, c10::ScalarType::UInt32},
    {DataType::kUint64, c10::ScalarType::UInt64},
    {DataType::kInt8, c10::ScalarType::Char},
    {DataType::kInt16, c10::ScalarType::Short},
    {DataType::kInt32, c10::ScalarType::Int},
    {DataType::kInt64, c10::ScalarType::Long},
    {DataType::kFp16, c10::ScalarType::Half},
    {DataType::kFp32, c10::ScalarType::Float},
    {DataType::kFp64, c10::ScalarType::Double},
    {DataType::kBf16, c10::ScalarType::BFloat16},
}};

absl::Span<const int64_t> Dims(const at::Tensor& tensor) {
  return {tensor.sizes().data(), tensor.sizes().size()};
}

// The shape an output must have, with -1 for the batch dimension.
Shape ExpectedDims(const LoadCommand& command, const TensorSpec& spec) {
  Shape dims = spec.dims;
  if (command.max_batch_size > 0) dims.insert(dims.begin(), -1);
  return dims;
}

bool Fits(absl::Span<const int64_t> expected, absl::Span<const int64_t> dims) {
  return std::equal(expected.begin(), expected.end(), dims.begin(), dims.end(),
                    [](int64_t want, int64_t have) { return want < 0 || want == have; });
}

}  // namespace

std::optional<c10::ScalarType> ToScalarType(DataType type) {
  for (const auto& [ours, torchs] : kTypes) {
    if (ours == type) return torchs;
  }
  return std::nullopt;
}

std::optional<DataType> ToDataType(c10::ScalarType type) {
  for (const auto& [ours, torchs] : kTypes) {
    if (torchs == type) return ours;
  }
  return std::nullopt;
}

at::Tensor CopyRows(DataType type, const std::vector<int64_t>& dims, int64_t rows,
                    absl::Span<const std::byte> data) {
  at::Tensor tensor = at::empty(dims, *ToScalarType(type));
  if (tensor.nbytes() == 0 || data.empty()) return tensor;
  auto* const begin = static_cast<std::byte*>(tensor.mutable_data_ptr());
  const size_t row_bytes = tensor.nbytes() / static_cast<size_t>(rows);
  for (size_t at = 0; at < tensor.nbytes(); at += row_bytes) {
    std::memcpy(begin + at, data.data() + at % data.size(), row_bytes);
  }
  return tensor;
}

at::Tensor MakeValues(DataType type, const std::vector<int64_t>& dims, bool random) {
  const c10::ScalarType scalar = *ToScalarType(type);
  if (!random) return at::zeros(dims, scalar);
  if (c10::isFloatingType(scalar)) return at::rand(dims).to(scalar);
  return at::randint(0, 2, dims).to(scalar);
}

std::string Describe(const at::Tensor& tensor) {
  if (!tensor.defined()) return "an undefined tensor";
  const std::optional<DataType> type = ToDataType(tensor.scalar_type());
  return absl::StrCat(type ? WireName(*type) : c10::toString(tensor.scalar_type()), " ",
                      ToString(Dims(tensor)));
}

std::string Describe(absl::Span<const at::Tensor> tensors, const std::vector<std::string>& names) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < tensors.size(); ++i) {
    parts.push_back(i < names.size() ? absl::StrCat("'", names[i], "' ", Describe(tensors[i]))
                                     : Describe(tensors[i]));
  }
  return parts.empty() ? "nothing" : absl::StrJoin(parts, ", ");
}

std::vector<std::string> NamesOf(const std::vector<TensorSpec>& specs) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : specs) names.push_back(spec.name);
  return names;
}

absl::Status CheckOutputs(const LoadCommand& command, int64_t rows,
                          absl::Span<const at::Tensor> outputs) {
  MILLRACE_CHECK(outputs.size() == command.outputs.size(), "Engines check the count.");
  for (size_t i = 0; i < outputs.size(); ++i) {
    const TensorSpec& spec = command.outputs[i];
    const Shape expected = ExpectedDims(command, spec);
    const auto error = [&](const auto&... pieces) {
      return absl::FailedPreconditionError(
          absl::StrCat("output '", spec.name, "': ", pieces..., "; in all the model returns ",
                       Describe(outputs, NamesOf(command.outputs))));
    };
    const at::Tensor& output = outputs[i];
    if (!output.defined() || ToDataType(output.scalar_type()) != spec.data_type ||
        !Fits(expected, Dims(output))) {
      return error("the model returns ", Describe(output), ", but the config declares ",
                   WireName(spec.data_type), " ", ToString(expected));
    }
    if (command.max_batch_size > 0 && output.size(0) != rows) {
      return error("its first dimension is ", output.size(0), ", but the batch has ", rows,
                   " rows; with max_batch_size above 0 every output needs one row per input row");
    }
  }
  return absl::OkStatus();
}

}  // namespace millrace
