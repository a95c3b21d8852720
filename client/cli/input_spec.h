// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/tensor.h"

namespace millrace {
inline namespace client {

// What the command line says about a request's inputs.
struct InputSpecs {
  // NAME=VALUE, or VALUE alone for a model with one input; VALUE is JSON, @file.json, @file.npy,
  // or @file with raw bytes.
  std::vector<std::string> inputs;
  // NAME=1,3,224,224 and NAME=FP32, or without NAME= for a model with one input. They overrule
  // what the file and the model say.
  std::vector<std::string> shapes;
  std::vector<std::string> datatypes;
};

// The tensors that `specs` describe, for the model that `metadata` describes. What isn't said comes
// from the model: the datatype, the shape of raw bytes, and a leading dimension of one row where
// only that is missing. INVALID_ARGUMENT names the input that is wrong.
absl::StatusOr<std::vector<Tensor>> ReadInputs(const InputSpecs& specs,
                                               const ModelMetadata& metadata);

// The nameless tensor in the file `path`, of which `bytes` is the text: a .npy file, or a .json
// file of elements of `datatype`; nothing for other files. INVALID_ARGUMENT where it isn't one.
absl::StatusOr<std::optional<Tensor>> ParseTensorFile(const std::string& path,
                                                      const std::string& bytes,
                                                      const std::string& datatype);

// Adds a first dimension of one row where the model wants one more than there are.
void AddRowDimension(const TensorMetadata& input, Tensor& tensor);

}  // namespace client
}  // namespace millrace
