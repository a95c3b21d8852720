// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace millrace {

// The element types of tensors. The values are those of inference.DataType in model_config.proto.
enum class DataType : uint8_t {
  kInvalid = 0,
  kBool = 1,
  kUint8 = 2,
  kUint16 = 3,
  kUint32 = 4,
  kUint64 = 5,
  kInt8 = 6,
  kInt16 = 7,
  kInt32 = 8,
  kInt64 = 9,
  kFp16 = 10,
  kFp32 = 11,
  kFp64 = 12,
  kBytes = 13,
  kBf16 = 14,
};

// Bytes of one element; 0 for kBytes, whose elements differ, and for kInvalid.
size_t ElementSize(DataType type);

// The type's name on the wire ("FP32"), as KServe v2 spells it; "INVALID" for kInvalid.
absl::string_view WireName(DataType type);

// The type with this wire name; nullopt where there is none.
std::optional<DataType> DataTypeFromWireName(absl::string_view name);

}  // namespace millrace
