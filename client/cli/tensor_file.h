// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/tensor.h"

// Tensors in files. NumPy's .npy format:
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
namespace millrace {
inline namespace client {

// The whole file; NOT_FOUND when it can't be read.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// The nameless tensor in the bytes of a .npy file; INVALID_ARGUMENT for what no datatype carries:
// objects, texts, structures, big-endian and Fortran-ordered arrays.
absl::StatusOr<Tensor> ParseNpy(const std::string& bytes);

// `tensor` as the bytes of a .npy file. NumPy has no BF16: it becomes uint16 with the same bits.
// INVALID_ARGUMENT for BYTES.
absl::StatusOr<std::string> FormatNpy(const Tensor& tensor);

absl::Status WriteFile(const std::string& path, const std::string& bytes);

}  // namespace client
}  // namespace millrace
