// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/data_type.h"

#include <array>

namespace millrace {
namespace {

struct Row {
  DataType type;
  absl::string_view wire_name;
  size_t element_size;
};

// Indexed by the enumerator's value.
constexpr std::array<Row, 15> kTypes = {{
    {DataType::kInvalid, "INVALID", 0},
    {DataType::kBool, "BOOL", 1},
    {DataType::kUint8, "UINT8", 1},
    {DataType::kUint16, "UINT16", 2},
    {DataType::kUint32, "UINT32", 4},
    {DataType::kUint64, "UINT64", 8},
    {DataType::kInt8, "INT8", 1},
    {DataType::kInt16, "INT16", 2},
    {DataType::kInt32, "INT32", 4},
    {DataType::kInt64, "INT64", 8},
    {DataType::kFp16, "FP16", 2},
    {DataType::kFp32, "FP32", 4},
    {DataType::kFp64, "FP64", 8},
    {DataType::kBytes, "BYTES", 0},
    {DataType::kBf16, "BF16", 2},
}};

const Row& RowOf(DataType type) {
  const auto index = static_cast<size_t>(type);
  return index < kTypes.size() ? kTypes[index] : kTypes[0];
}

}  // namespace

size_t ElementSize(DataType type) { return RowOf(type).element_size; }

absl::string_view WireName(DataType type) { return RowOf(type).wire_name; }

std::optional<DataType> DataTypeFromWireName(absl::string_view name) {
  for (const Row& row : kTypes) {
    if (row.type != DataType::kInvalid && row.wire_name == name) return row.type;
  }
  return std::nullopt;
}

}  // namespace millrace
