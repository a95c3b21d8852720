// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/tensor.h"
#include "nlohmann/json.hpp"

// Tensors as JSON: nested arrays in, flat arrays out, as in the KServe v2 REST protocol.
namespace millrace {
inline namespace client {

// The nameless tensor in `text`, a number, boolean or (nested) array of them; its shape is that of
// the nesting. INVALID_ARGUMENT for ragged arrays, for numbers that `datatype` can't hold, and for
// FP16, BF16 and BYTES, which have no JSON form.
absl::StatusOr<Tensor> ParseJsonTensor(const std::string& text, const std::string& datatype);

// {"name", "datatype", "shape", "data": [flat]}. FP16 and BF16 become numbers, BYTES strings;
// elements of an unknown datatype are left out.
nlohmann::ordered_json ToJson(const Tensor& tensor);

// Saves `tensor` as a .npy file; {"name", "datatype", "shape", "file": path}. INVALID_ARGUMENT for
// BYTES; an error, too, where the file can't be written.
absl::StatusOr<nlohmann::ordered_json> SaveOutput(const Tensor& tensor, const std::string& path);

// The elements alone, in a flat array.
nlohmann::ordered_json ElementsToJson(const Tensor& tensor);

// In one line, with U+FFFD in place of what is no UTF-8: BYTES, names of files and messages of
// servers may hold anything.
std::string ToText(const nlohmann::ordered_json& json);

}  // namespace client
}  // namespace millrace
