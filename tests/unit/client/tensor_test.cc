// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/tensor.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Tensor, CarriesValuesAsLittleEndianBytes) {
  const Tensor tensor = Tensor::Of<int32_t>("x", {3}, {1, -1, 258});
  EXPECT_EQ(tensor.datatype, "INT32");
  EXPECT_EQ(tensor.data, std::string("\1\0\0\0\xff\xff\xff\xff\2\1\0\0", 12));
  EXPECT_THAT(*tensor.Values<int32_t>(), ElementsAre(1, -1, 258));
}

TEST(Tensor, ValuesOfAnotherTypeAreRefused) {
  const Tensor tensor = Tensor::Of<float>("x", {1}, {1.0f});
  EXPECT_THAT(tensor.Values<int32_t>().status().message(),
              HasSubstr("tensor 'x' is FP32, but its values were asked for as INT32"));
}

TEST(Tensor, BytesThatAreNoWholeElementsAreRefused) {
  const Tensor tensor{"x", "FP32", {1}, "abcde"};
  EXPECT_THAT(tensor.Values<float>().status().message(),
              HasSubstr("5 bytes, no multiple of the 4"));
}

TEST(Tensor, ElementCountIsTheProductOfItsShape) {
  EXPECT_EQ((Tensor{"x", "FP32", {2, 3, 4}, ""}.ElementCount()), 24);
  EXPECT_EQ((Tensor{"x", "FP32", {}, ""}.ElementCount()), 1);
  EXPECT_EQ((Tensor{"x", "FP32", {5, 0}, ""}.ElementCount()), 0);
}

TEST(Tensor, ElementSizeKnowsEveryDatatypeOfFixedSize) {
  EXPECT_EQ(ElementSize("BF16"), 2u);
  EXPECT_EQ(ElementSize("FP64"), 8u);
  EXPECT_EQ(ElementSize("BOOL"), 1u);
  EXPECT_EQ(ElementSize("BYTES"), std::nullopt);
  EXPECT_EQ(ElementSize("float32"), std::nullopt);
}

}  // namespace
}  // namespace millrace
