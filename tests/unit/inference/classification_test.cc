// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/classification.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace millrace {
namespace {

using testing::ElementsAre;

// An answer of one output with these values, and behind it one of the byte 7.
template <typename T>
Response Answer(DataType type, Shape shape, const std::vector<T>& values) {
  Response response;
  const size_t bytes = values.size() * sizeof(T);
  response.memory_size = bytes + 1;
  response.memory.reset(new std::byte[response.memory_size]);
  std::memcpy(response.memory.get(), values.data(), bytes);
  response.memory[bytes] = std::byte{7};
  response.outputs.push_back({.name = "scores",
                              .data_type = type,
                              .shape = std::move(shape),
                              .data = {response.memory.get(), bytes}});
  response.outputs.push_back({.name = "other",
                              .data_type = DataType::kUint8,
                              .shape = {1, 1},
                              .data = {response.memory.get() + bytes, 1}});
  return response;
}

std::vector<std::string> ElementsOf(const OutputTensor& output) {
  std::vector<std::string> elements;
  for (size_t at = 0; at < output.data.size();) {
    uint32_t length = 0;
    std::memcpy(&length, output.data.data() + at, sizeof(length));
    at += sizeof(length);
    elements.emplace_back(reinterpret_cast<const char*>(output.data.data() + at), length);
    at += length;
  }
  return elements;
}

std::vector<Classes> Best(int64_t most, const Labels& labels = {}) {
  return {{.most = most, .labels = std::make_shared<const Labels>(labels)}, {}};
}

TEST(Classify, GivesTheBestOfEachRowAsTritonWritesThem) {
  Response response = Answer<float>(DataType::kFp32, {2, 3}, {0.25F, 3, -1, 5, 4, 6});
  Classify(Best(2, {"red", "green"}), /*batched=*/true, response);
  const OutputTensor& output = response.outputs[0];
  EXPECT_EQ(output.data_type, DataType::kBytes);
  EXPECT_THAT(output.shape, ElementsAre(2, 2));
  EXPECT_THAT(ElementsOf(output),
              ElementsAre("3.000000:1:green", "0.250000:0:red", "6.000000:2", "5.000000:0:red"));
  EXPECT_EQ(response.outputs[1].data[0], std::byte{7});
  EXPECT_EQ(response.outputs[1].data.data() + 1, response.memory.get() + response.memory_size);
}

TEST(Classify, EqualValuesKeepTheirOrderAndWhatIsNoNumberComesLast) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  Response response = Answer<double>(DataType::kFp64, {1, 5}, {kNan, 1, -INFINITY, 1, kNan});
  Classify(Best(5), /*batched=*/true, response);
  std::vector<std::string> indices;
  for (const std::string& element : ElementsOf(response.outputs[0])) {
    indices.push_back(element.substr(element.find(':') + 1));
  }
  EXPECT_THAT(indices, ElementsAre("1", "3", "2", "0", "4"));
}

TEST(Classify, NoMoreThanThereAre) {
  Response response = Answer<uint8_t>(DataType::kUint8, {3}, {9, 200, 7});
  Classify(Best(1'000'000'000'000), /*batched=*/false, response);
  EXPECT_THAT(response.outputs[0].shape, ElementsAre(3));
  EXPECT_THAT(ElementsOf(response.outputs[0]), ElementsAre("200:1", "9:0", "7:2"));
}

TEST(Classify, RowsOfSeveralDimensionsAreTakenAsOne) {
  Response response = Answer<int64_t>(DataType::kInt64, {1, 2, 2}, {1, 2, 3, 4});
  Classify(Best(1), /*batched=*/true, response);
  EXPECT_THAT(response.outputs[0].shape, ElementsAre(1, 1));
  EXPECT_THAT(ElementsOf(response.outputs[0]), ElementsAre("4:3"));
}

TEST(Classify, HalfPrecisionHasNoClasses) {
  EXPECT_FALSE(CanBeClassified(DataType::kFp16));
  EXPECT_FALSE(CanBeClassified(DataType::kBool));
  EXPECT_TRUE(CanBeClassified(DataType::kInt32));
}

}  // namespace
}  // namespace millrace
