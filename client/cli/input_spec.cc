// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/input_spec.h"

#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/cli/tensor_file.h"
#include "client/cli/tensor_json.h"

namespace millrace {
inline namespace client {
namespace {

absl::StatusOr<const TensorMetadata*> FindInput(const ModelMetadata& model,
                                                const std::string& name) {
  for (const TensorMetadata& input : model.inputs) {
    if (input.name == name) return &input;
  }
  const auto append_name = [](std::string* out, const TensorMetadata& input) {
    *out += input.name;
  };
  return absl::InvalidArgumentError(
      absl::StrCat("model '", model.name, "' has no input '", name,
                   "'; it has: ", absl::StrJoin(model.inputs, ", ", append_name)));
}

// Splits NAME=VALUE. Without NAME= the name is that of the model's only input.
absl::StatusOr<std::pair<std::string, std::string>> SplitName(const std::string& spec,
                                                              const ModelMetadata& model) {
  const size_t equals = spec.find('=');
  const bool has_name = equals != std::string::npos && spec[0] != '@' && spec[0] != '[';
  if (has_name) return std::make_pair(spec.substr(0, equals), spec.substr(equals + 1));
  if (model.inputs.size() == 1) return std::make_pair(model.inputs[0].name, spec);
  return absl::InvalidArgumentError(absl::StrCat("'", spec, "' names no input, and model '",
                                                 model.name, "' has ", model.inputs.size(),
                                                 "; write NAME=", spec));
}

// The value that `specs` give for the input `name`, if any.
absl::StatusOr<std::optional<std::string>> ValueFor(const std::string& name,
                                                    const std::vector<std::string>& specs,
                                                    const ModelMetadata& model) {
  std::optional<std::string> found;
  for (const std::string& spec : specs) {
    auto split = SplitName(spec, model);
    if (!split.ok()) return split.status();
    if (split->first == name) found = std::move(split->second);
  }
  return found;
}

absl::StatusOr<std::vector<int64_t>> ParseShape(const std::string& text) {
  std::vector<int64_t> shape;
  for (const std::string& dim : std::vector<std::string>(absl::StrSplit(text, ','))) {
    if (!absl::SimpleAtoi(dim, &shape.emplace_back()) || shape.back() < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", text, "' is no shape; expected numbers such as 1,3,224,224"));
    }
  }
  return shape;
}

// The model's shape for one row; an error where it leaves other dimensions open.
absl::StatusOr<std::vector<int64_t>> ShapeOfOneRow(const TensorMetadata& input) {
  std::vector<int64_t> shape = input.shape;
  if (!shape.empty() && shape[0] == -1) shape[0] = 1;
  for (int64_t dim : shape) {
    if (dim == -1) {
      return absl::InvalidArgumentError(absl::StrCat("the model leaves dimensions open (",
                                                     DescribeType(input.datatype, input.shape),
                                                     "); say --shape ", input.name, "=..."));
    }
  }
  return shape;
}

// The tensor for a value that is a file or JSON text; `datatype` is the one to use where the value
// doesn't say.
absl::StatusOr<Tensor> ReadValue(const std::string& value, const std::string& datatype,
                                 const TensorMetadata& input, bool shape_given) {
  if (value.empty() || value[0] != '@') return ParseJsonTensor(value, datatype);
  const std::string path = value.substr(1);
  auto bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  auto parsed = ParseTensorFile(path, *bytes, datatype);
  if (!parsed.ok()) return parsed.status();
  if (parsed->has_value()) return **std::move(parsed);
  Tensor tensor{"", datatype, {}, *std::move(bytes)};
  if (!shape_given) {
    auto shape = ShapeOfOneRow(input);
    if (!shape.ok()) return shape.status();
    tensor.shape = *std::move(shape);
  }
  return tensor;
}

absl::StatusOr<Tensor> ReadInput(const TensorMetadata& input, const std::string& value,
                                 const std::optional<std::string>& datatype,
                                 const std::optional<std::string>& shape) {
  if (datatype.has_value() && !ElementSize(*datatype).has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", *datatype,
                     "' is no datatype; expected BOOL, UINT8 to UINT64, INT8 to INT64, FP16, "
                     "BF16, FP32 or FP64"));
  }
  auto tensor = ReadValue(value, datatype.value_or(input.datatype), input, shape.has_value());
  if (!tensor.ok()) return tensor.status();
  tensor->name = input.name;
  if (datatype.has_value()) tensor->datatype = *datatype;
  if (!shape.has_value()) {
    AddRowDimension(input, *tensor);
    return tensor;
  }
  auto dims = ParseShape(*shape);
  if (!dims.ok()) return dims.status();
  tensor->shape = *std::move(dims);
  return tensor;
}

}  // namespace

absl::StatusOr<std::optional<Tensor>> ParseTensorFile(const std::string& path,
                                                      const std::string& bytes,
                                                      const std::string& datatype) {
  if (absl::EndsWith(path, ".npy")) return ParseNpy(bytes);
  if (absl::EndsWith(path, ".json")) return ParseJsonTensor(bytes, datatype);
  return std::nullopt;
}

void AddRowDimension(const TensorMetadata& input, Tensor& tensor) {
  const bool batches = !input.shape.empty() && input.shape[0] == -1;
  if (batches && tensor.shape.size() + 1 == input.shape.size()) {
    tensor.shape.insert(tensor.shape.begin(), 1);
  }
}

absl::StatusOr<std::vector<Tensor>> ReadInputs(const InputSpecs& specs,
                                               const ModelMetadata& metadata) {
  std::vector<Tensor> tensors;
  for (const std::string& spec : specs.inputs) {
    const auto split = SplitName(spec, metadata);
    if (!split.ok()) return split.status();
    const auto& [name, value] = *split;
    const auto input = FindInput(metadata, name);
    if (!input.ok()) return input.status();
    const auto datatype = ValueFor(name, specs.datatypes, metadata);
    if (!datatype.ok()) return datatype.status();
    const auto shape = ValueFor(name, specs.shapes, metadata);
    if (!shape.ok()) return shape.status();
    auto tensor = ReadInput(**input, value, *datatype, *shape);
    if (!tensor.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("input '", name, "': ", std::string(tensor.status().message())));
    }
    tensors.push_back(*std::move(tensor));
  }
  return tensors;
}

}  // namespace client
}  // namespace millrace
