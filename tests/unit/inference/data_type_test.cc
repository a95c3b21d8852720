// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/data_type.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace millrace {
namespace {

TEST(DataType, NamesAndSizesAreThoseOfKServe) {
  const struct {
    DataType type;
    const char* name;
    size_t size;
  } cases[] = {
      {DataType::kBool, "BOOL", 1},     {DataType::kUint8, "UINT8", 1},
      {DataType::kUint16, "UINT16", 2}, {DataType::kUint32, "UINT32", 4},
      {DataType::kUint64, "UINT64", 8}, {DataType::kInt8, "INT8", 1},
      {DataType::kInt16, "INT16", 2},   {DataType::kInt32, "INT32", 4},
      {DataType::kInt64, "INT64", 8},   {DataType::kFp16, "FP16", 2},
      {DataType::kFp32, "FP32", 4},     {DataType::kFp64, "FP64", 8},
      {DataType::kBytes, "BYTES", 0},   {DataType::kBf16, "BF16", 2},
  };
  for (const auto& [type, name, size] : cases) {
    EXPECT_EQ(std::string(WireName(type)), name);
    EXPECT_EQ(ElementSize(type), size) << name;
    EXPECT_EQ(DataTypeFromWireName(name), type) << name;
  }
}

TEST(DataType, OtherNamesAreNoTypes) {
  for (const char* name : {"", "INVALID", "fp32", "FP32 ", "FLOAT", "TYPE_FP32"}) {
    EXPECT_EQ(DataTypeFromWireName(name), std::nullopt) << name;
  }
}

TEST(DataType, ValueThatIsNoTypeHasNoSize) {
  EXPECT_EQ(ElementSize(DataType::kInvalid), 0);
  EXPECT_EQ(ElementSize(static_cast<DataType>(200)), 0);
  EXPECT_EQ(std::string(WireName(static_cast<DataType>(200))), "INVALID");
}

}  // namespace
}  // namespace millrace
