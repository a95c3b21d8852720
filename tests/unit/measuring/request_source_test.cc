// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/request_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace millrace {
namespace {

using ::testing::HasSubstr;

ModelSettings SettingsOf(DataType type, Shape dims) {
  ModelSettings settings;
  settings.name = "model";
  settings.max_batch_size = 8;
  settings.inputs = {{.name = "x", .data_type = type, .dims = std::move(dims)}};
  settings.outputs = {{.name = "y", .data_type = DataType::kFp32, .dims = {1}}};
  return settings;
}

template <typename T>
std::vector<T> ValuesOf(const Request& request) {
  std::vector<T> values(request.inputs[0].payload.size() / sizeof(T));
  request.inputs[0].payload.CopyTo(
      0, {reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(T)});
  return values;
}

TEST(RequestSource, RequestsFitTheSignature) {
  for (const DataType type : {DataType::kFp16, DataType::kBf16, DataType::kFp32, DataType::kFp64,
                              DataType::kInt64, DataType::kBool, DataType::kUint8}) {
    const ModelSettings settings = SettingsOf(type, {3, 4});
    const auto source = RequestSource::Create(settings, "", 8);
    ASSERT_TRUE(source.ok());
    for (const int64_t rows : {1, 5, 8}) {
      const auto checked = settings.SignatureOf(1).Check((*source)->Make(rows));
      ASSERT_TRUE(checked.ok()) << checked.status();
      EXPECT_EQ(checked->rows, rows);
    }
  }
}

TEST(RequestSource, ModelThatDoesNotBatchGetsItsShape) {
  ModelSettings settings = SettingsOf(DataType::kFp32, {3, 4});
  settings.max_batch_size = 0;
  const auto source = RequestSource::Create(settings, "", 1);
  ASSERT_TRUE(source.ok());
  EXPECT_EQ((*source)->Make(1).inputs[0].shape, (Shape{3, 4}));
  EXPECT_TRUE(settings.SignatureOf(1).Check((*source)->Make(1)).ok());
}

TEST(RequestSource, FloatsAreRandomAndIntegersZero) {
  const auto floats = RequestSource::Create(SettingsOf(DataType::kFp32, {100}), "", 1);
  ASSERT_TRUE(floats.ok());
  const std::vector<float> values = ValuesOf<float>((*floats)->Make(1));
  EXPECT_THAT(values, ::testing::Each(::testing::AllOf(::testing::Ge(0.5F), ::testing::Lt(1.0F))));
  EXPECT_NE(values[0], values[1]);
  const auto integers = RequestSource::Create(SettingsOf(DataType::kInt32, {100}), "", 1);
  ASSERT_TRUE(integers.ok());
  EXPECT_THAT(ValuesOf<int32_t>((*integers)->Make(1)), ::testing::Each(0));
}

TEST(RequestSource, SampleSaysOpenDimsAndZeros) {
  ModelSettings settings = SettingsOf(DataType::kFp32, {-1});
  settings.warmup.resize(1);
  settings.warmup[0].inputs.resize(1);
  settings.warmup[0].inputs[0].dims = {7};
  settings.warmup[0].rows = 2;
  const auto source = RequestSource::Create(settings, "", 2);
  ASSERT_TRUE(source.ok());
  EXPECT_EQ((*source)->Make(2).inputs[0].shape, (Shape{2, 7}));
  EXPECT_THAT(ValuesOf<float>((*source)->Make(2)), ::testing::Each(0.0F));
}

TEST(RequestSource, OpenDimsWithoutASample) {
  const auto source = RequestSource::Create(SettingsOf(DataType::kFp32, {-1}), "", 2);
  EXPECT_EQ(source.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(source.status().message()), HasSubstr("model_warmup"));
}

}  // namespace
}  // namespace millrace
