// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/tensor_json.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(TensorJson, NestingGivesTheShape) {
  const auto tensor = ParseJsonTensor("[[1, 2.5, -3], [4, 5, 6]]", "FP32");
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_THAT(tensor->shape, ElementsAre(2, 3));
  EXPECT_THAT(*tensor->Values<float>(), ElementsAre(1, 2.5, -3, 4, 5, 6));
  EXPECT_THAT(ParseJsonTensor("7", "INT32")->shape, IsEmpty());
  EXPECT_THAT(ParseJsonTensor("[[], []]", "INT32")->shape, ElementsAre(2, 0));
  EXPECT_EQ(ParseJsonTensor("[true, false]", "BOOL")->data, std::string("\1\0", 2));
}

TEST(TensorJson, RefusesWhatDoesNotFit) {
  const auto error = [](const char* text, const char* datatype) {
    return std::string(ParseJsonTensor(text, datatype).status().message());
  };
  EXPECT_THAT(error("[1, 2", "FP32"), HasSubstr("'[1, 2' is not JSON"));
  EXPECT_THAT(error("[[1, 2], [3]]", "FP32"), HasSubstr("ragged"));
  EXPECT_THAT(error("[1, [3]]", "FP32"), HasSubstr("ragged"));
  EXPECT_THAT(error("[1.5]", "INT32"), HasSubstr("element 1.5 does not fit datatype INT32"));
  EXPECT_THAT(error("[256]", "UINT8"), HasSubstr("element 256 does not fit"));
  EXPECT_THAT(error("[-1]", "UINT64"), HasSubstr("element -1 does not fit"));
  EXPECT_THAT(error("[\"a\"]", "FP32"), HasSubstr("does not fit"));
  EXPECT_THAT(error("[1]", "BOOL"), HasSubstr("does not fit"));
  EXPECT_THAT(error("[1]", "FP16"), HasSubstr("no JSON form"));
  EXPECT_THAT(error("[1]", "BYTES"), HasSubstr("no JSON form"));
}

TEST(TensorJson, PrintsEveryDatatypeAsNumbers) {
  EXPECT_EQ(ElementsToJson(Tensor::Of<int8_t>("x", {2}, {-1, 2})).dump(), "[-1,2]");
  EXPECT_EQ(ElementsToJson(Tensor::Of<float>("x", {1}, {0.5f})).dump(), "[0.5]");
  EXPECT_EQ(ElementsToJson({"x", "BOOL", {2}, std::string("\1\0", 2)}).dump(), "[true,false]");
  // 1.0, -2.0, the smallest subnormal, infinity
  EXPECT_EQ(ElementsToJson({"x", "FP16", {4}, std::string("\x00\x3c\x00\xc0\x01\x00\x00\x7c", 8)}),
            nlohmann::ordered_json({1.0f, -2.0f, 5.9604644775390625e-8f, INFINITY}));
  EXPECT_EQ(ElementsToJson({"x", "BF16", {2}, std::string("\x80\x3f\x00\xc0", 4)}).dump(),
            "[1.0,-2.0]");
}

TEST(TensorJson, TextIsUtf8WhateverItIsMadeOf) {
  EXPECT_EQ(ToText({{"name", "caf\xc3\xa9"}, {"data", "\xff\xfe!"}}),
            "{\"name\":\"caf\xc3\xa9\",\"data\":\"\xef\xbf\xbd\xef\xbf\xbd!\"}");
}

}  // namespace
}  // namespace millrace
