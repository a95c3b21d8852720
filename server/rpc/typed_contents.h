// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "server/inference/data_type.h"
#include "server/rpc/wire_reader.h"

namespace millrace {

// Elements per field of an inference.InferTensorContents, by field number; 0 is unused.
using TypedCounts = std::array<size_t, 9>;

// Reads one InferTensorContents, up to the limit of `in`, and adds its elements to `counts`.
// False where libprotobuf would not parse it.
bool CountTypedContents(WireReader& in, TypedCounts* counts);

// An input's elements as a tensor: row-major, little-endian, without gaps.
struct TensorBytes {
  std::unique_ptr<std::byte[]> bytes;
  size_t size = 0;
};

// Turns all `contents` of an InferInputTensor into a tensor of `type` with `elements` elements.
// `tensor` stands at the start of that message, whose contents were counted before, together.
// INVALID_ARGUMENT where the elements stand in another field than the type's, are more or fewer,
// don't fit the type, or where the type travels raw only.
absl::StatusOr<TensorBytes> ConvertTypedContents(WireReader tensor, const TypedCounts& counts,
                                                 DataType type, size_t elements);

}  // namespace millrace
