// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/tensor.h"

namespace millrace {
inline namespace client {

// A tensor of one element for `input`, which takes BYTES: a file, say. INVALID_ARGUMENT for more
// than 4 GiB.
absl::StatusOr<Tensor> BytesTensor(const TensorMetadata& input, const std::string& element);

}  // namespace client
}  // namespace millrace
