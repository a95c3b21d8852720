// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/channel/worker_protocol.h"
#include "server/inference/data_type.h"

namespace millrace {

// libtorch's type for ours, and back; nullopt where there is none.
std::optional<c10::ScalarType> ToScalarType(DataType type);
std::optional<DataType> ToDataType(c10::ScalarType type);

// A tensor of zeros, or of random values from 0 to 1; integers are 0 or 1. REQUIRES: libtorch has
// the type.
at::Tensor MakeValues(DataType type, const std::vector<int64_t>& dims, bool random);

// A tensor of `rows` rows, `dims` in all, copied from the rows in `data`, which are taken in turn.
// REQUIRES: libtorch has the type; `data` holds whole rows, at least one.
at::Tensor CopyRows(DataType type, const std::vector<int64_t>& dims, int64_t rows,
                    absl::Span<const std::byte> data);

// "FP32 [4,10]".
std::string Describe(const at::Tensor& tensor);

// "FP32 [4,10], INT64 [4]"; with names "'boxes' FP32 [4,10], …" where `names` isn't empty.
std::string Describe(absl::Span<const at::Tensor> tensors,
                     const std::vector<std::string>& names = {});

// Names of the tensors that the config declares.
std::vector<std::string> NamesOf(const std::vector<TensorSpec>& specs);

// Checks what the model returned against the config's outputs: data type, rank, dims, and with
// batching that the first dimension is the batch's `rows`. FAILED_PRECONDITION says what came, what
// was expected, and all that the model returned. REQUIRES: one tensor per output.
absl::Status CheckOutputs(const LoadCommand& command, int64_t rows,
                          absl::Span<const at::Tensor> outputs);

}  // namespace millrace
