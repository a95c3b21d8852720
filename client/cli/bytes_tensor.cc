// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bytes_tensor.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace millrace {
inline namespace client {

absl::StatusOr<Tensor> BytesTensor(const TensorMetadata& input, const std::string& element) {
  if (element.size() > UINT32_MAX)
    return absl::InvalidArgumentError("an element of BYTES may have 4 GiB at most");
  const auto length = static_cast<uint32_t>(element.size());
  std::string data;
  data.reserve(sizeof(length) + element.size());
  for (size_t i = 0; i < sizeof(length); ++i) data += static_cast<char>(length >> (8 * i));
  data += element;
  return Tensor{input.name, "BYTES", std::vector<int64_t>(input.shape.size(), 1), std::move(data)};
}

}  // namespace client
}  // namespace millrace
