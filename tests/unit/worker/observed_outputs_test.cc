// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/observed_outputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TensorSpec Output(Shape dims, DataType type = DataType::kFp32, const char* name = "y") {
  return {name, type, std::move(dims)};
}

std::string Error(const std::vector<ObservedRun>& runs) {
  const absl::Status status = MergeOutputs(runs).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  return std::string(status.message());
}

TEST(ObservedOutputs, TheBatchDimensionIsLeftOut) {
  const auto outputs = MergeOutputs({{1, {Output({1, 4}), Output({1}, DataType::kInt64, "n")}},
                                     {2, {Output({2, 4}), Output({2}, DataType::kInt64, "n")}}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT((*outputs)[0].dims, ElementsAre(4));
  EXPECT_THAT((*outputs)[1].dims, ElementsAre());
  EXPECT_EQ((*outputs)[1].data_type, DataType::kInt64);
}

TEST(ObservedOutputs, WithoutOneTheWholeShapeStays) {
  const auto outputs = MergeOutputs({{0, {Output({1, 4})}}, {0, {Output({1, 4})}}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT((*outputs)[0].dims, ElementsAre(1, 4));
}

TEST(ObservedOutputs, DimsThatChangeAreOpen) {
  const auto outputs =
      MergeOutputs({{2, {Output({2, 4, 7})}}, {2, {Output({2, 5, 7})}}, {3, {Output({3, 4, 7})}}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT((*outputs)[0].dims, ElementsAre(-1, 7));
}

TEST(ObservedOutputs, AnOutputWithoutARowForEachOfTheInputsIsAnError) {
  EXPECT_THAT(Error({{1, {Output({1, 4})}}, {2, {Output({1, 4})}}}),
              HasSubstr("'y' is FP32 [1,4] where the inputs have 2 rows"));
  EXPECT_THAT(Error({{1, {Output({})}}}), HasSubstr("'y' is FP32 []"));
}

TEST(ObservedOutputs, OutputsThatArentTheSameFromRunToRunAreAnError) {
  EXPECT_THAT(Error({{1, {Output({1})}}, {1, {Output({1}), Output({1})}}}),
              HasSubstr("1 outputs in one run and 2 in another"));
  EXPECT_THAT(Error({{0, {Output({4})}}, {0, {Output({4, 1})}}}), HasSubstr("in another"));
  EXPECT_THAT(Error({{0, {Output({4})}}, {0, {Output({4}, DataType::kInt32)}}}),
              HasSubstr("INT32"));
  EXPECT_THAT(Error({{0, {Output({4})}}, {0, {Output({4}, DataType::kFp32, "z")}}}),
              HasSubstr("'z'"));
}

}  // namespace
}  // namespace millrace
