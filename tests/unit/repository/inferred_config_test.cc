// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/inferred_config.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/repository/model_config.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

Inspection Net() {
  Inspection net;
  net.libtorch_version = "2.13.0";
  net.arguments = "forward(Tensor x) -> Tensor";
  net.inputs = {{"x", DataType::kFp32, {3, -1}}};
  net.outputs = {{"OUTPUT__0", DataType::kInt64, {}}};
  net.max_batch_size = 8;
  return net;
}

// The settings that a server makes of the config.
ModelSettings SettingsOf(const Inspection& inspection) {
  const auto settings = ParseModelConfig(InferredConfig(inspection), "config.pbtxt", "net");
  EXPECT_TRUE(settings.ok()) << settings.status();
  return *settings;
}

TEST(InferredConfig, SaysWhatWasFoundOut) {
  const ModelSettings settings = SettingsOf(Net());
  EXPECT_EQ(settings.max_batch_size, 8);
  ASSERT_EQ(settings.inputs.size(), 1u);
  EXPECT_EQ(settings.inputs[0].name, "x");
  EXPECT_EQ(settings.inputs[0].data_type, DataType::kFp32);
  EXPECT_THAT(settings.inputs[0].dims, ElementsAre(3, -1));
  ASSERT_EQ(settings.outputs.size(), 1u);
  EXPECT_EQ(settings.outputs[0].data_type, DataType::kInt64);
  EXPECT_THAT(settings.outputs[0].dims, ElementsAre());
  EXPECT_EQ(settings.engine, std::nullopt);  // The file says it.
  EXPECT_TRUE(settings.instance_groups.empty());
}

TEST(InferredConfig, EveryDataTypeIsSpelledAsConfigsDo) {
  for (int number = 1; number <= static_cast<int>(DataType::kBf16); ++number) {
    const auto type = static_cast<DataType>(number);
    if (type == DataType::kBytes) continue;
    Inspection net = Net();
    net.inputs[0].data_type = type;
    EXPECT_EQ(SettingsOf(net).inputs[0].data_type, type) << number;
  }
}

TEST(InferredConfig, NamesThatAConfigCantHoldBecomePlaces) {
  Inspection net = Net();
  net.inputs.push_back({"with \"quotes\" and \\", DataType::kFp32, {1}});
  net.inputs.push_back({"line\nbreak", DataType::kFp32, {1}});
  net.inputs.push_back({"\xff", DataType::kFp32, {1}});
  net.outputs.push_back({"", DataType::kFp32, {1}});
  const ModelSettings settings = SettingsOf(net);
  EXPECT_EQ(settings.inputs[1].name, "with \"quotes\" and \\");
  EXPECT_EQ(settings.inputs[2].name, "INPUT__2");
  EXPECT_EQ(settings.inputs[3].name, "INPUT__3");
  EXPECT_EQ(settings.outputs[1].name, "OUTPUT__1");
}

TEST(InferredConfig, RowsThatDependOnEachOtherRunAlone) {
  Inspection net = Net();
  net.batching = absl::FailedPreconditionError("rows get other results in a batch than alone: …");
  EXPECT_EQ(SettingsOf(net).max_batch_size, 1);
  EXPECT_THAT(InferredConfig(net), HasSubstr("other results in a batch"));
  net.batching = absl::UnknownError("it is random");
  EXPECT_EQ(SettingsOf(net).max_batch_size, 8);
  EXPECT_THAT(InferredConfig(net), HasSubstr("inconclusive: it is random"));
}

TEST(InferredConfig, WithoutABatchDimensionDimsAreTheWholeShape) {
  Inspection net = Net();
  net.max_batch_size = 0;
  net.outputs[0].dims = {-1, 2};
  EXPECT_EQ(SettingsOf(net).max_batch_size, 0);
  EXPECT_THAT(DescribeInspection(net),
              AllOf(HasSubstr("x FP32 [3,-1]"), HasSubstr("OUTPUT__0 INT64 [-1,2]"),
                    HasSubstr("no batch dimension")));
}

TEST(InferredConfig, APackageRunsOnTheCpuThatItWasCompiledFor) {
  Inspection net = Net();
  net.engine = EngineKind::kAotInductor;
  net.instruction_set = "AVX512";
  const ModelSettings settings = SettingsOf(net);
  ASSERT_EQ(settings.instance_groups.size(), 1u);
  EXPECT_EQ(settings.instance_groups[0].kind, DeviceKind::kCpu);
  EXPECT_THAT(DescribeInspection(net), HasSubstr("compiled for AVX512"));
}

TEST(InferredConfig, NotesOfSeveralLinesStayComments) {
  Inspection net = Net();
  net.notes = {"first\nmax_batch_size: 99", "second"};
  EXPECT_EQ(SettingsOf(net).max_batch_size, 8);
  EXPECT_THAT(InferredConfig(net), HasSubstr("# Note: second."));
}

TEST(InferredConfig, JsonHoldsTheWholeShapesAndTheConfig) {
  const std::string json = InspectionJson(Net(), "max_batch_size: 8\n");
  EXPECT_THAT(json, HasSubstr("\"config\": \"max_batch_size: 8\\n\""));
  EXPECT_THAT(json, HasSubstr("\"name\": \"x\""));
  EXPECT_THAT(json, HasSubstr("\"rows_are_independent\": true"));
  EXPECT_THAT(json, Not(HasSubstr("8.0")));
}

}  // namespace
}  // namespace millrace
