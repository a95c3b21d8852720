// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace millrace {

// What an AOTInductor package says of an input that it wasn't compiled for. Its code holds a check
// for each property of each input, in order: the data type, each dim, each stride, the device.
struct InputFault {
  enum class Kind { kDataType, kDim, kDimTooSmall, kDimTooLarge, kStride, kDevice };

  size_t input = 0;
  Kind kind = Kind::kDataType;
  size_t dim = 0;        // Of a dim or stride.
  int64_t expected = 0;  // The value or bound; of a data type libtorch's number for it.
};

// Finds the fault in the text of an error that a package raised; nullopt where it isn't about an
// input.
std::optional<InputFault> ParseInputFault(absl::string_view text);

}  // namespace millrace
