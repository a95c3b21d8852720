// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/tuning_space.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelSettings Settings(Shape dims) {
  ModelSettings settings;
  settings.name = "model";
  settings.max_batch_size = 8;
  settings.inputs = {{.name = "x", .data_type = DataType::kFp32, .dims = std::move(dims)}};
  return settings;
}

Hardware Machine(double quota) {
  Hardware hardware;
  hardware.cpu.cpus = {0, 1, 2, 3};
  hardware.cpu.quota = quota;
  return hardware;
}

std::vector<std::string> ModesOf(const absl::StatusOr<TuningSpace>& space) {
  std::vector<std::string> names;
  for (const ExecutionMode& mode : space->modes) names.push_back(NameOf(mode));
  return names;
}

TEST(TuningSpace, FractionOfACoreIsOneThatCanBeBusy) {
  const auto space = TuningSpaceOf(Settings({4}), ModelVersion(), Machine(1.5));
  ASSERT_TRUE(space.ok());
  EXPECT_EQ(space->cores, 2);
  EXPECT_EQ(space->max_batch_size, 8);
  EXPECT_TRUE(space->varies_waiting);
  EXPECT_THAT(ModesOf(space), ElementsAre("torchscript"));
}

TEST(TuningSpace, PicturesMayLieInMemoryWithTheirChannelsLast) {
  const auto space = TuningSpaceOf(Settings({3, 224, 224}), ModelVersion(), Machine(4));
  EXPECT_THAT(ModesOf(space), ElementsAre("torchscript", "torchscript channels-last"));
}

TEST(TuningSpace, Bfloat16WhereTheCpuComputesIt) {
  Hardware machine = Machine(4);
  machine.cpu_model.computes_bfloat16 = true;
  EXPECT_THAT(ModesOf(TuningSpaceOf(Settings({4}), ModelVersion(), machine)),
              ElementsAre("torchscript", "torchscript bf16"));
}

TEST(TuningSpace, PackageBesideTheModelIsAnotherMode) {
  ModelVersion version;
  version.package = "model.pt2";
  EXPECT_THAT(ModesOf(TuningSpaceOf(Settings({4}), version, Machine(4))),
              ElementsAre("torchscript", "aotinductor"));
  version = {};
  version.engine = EngineKind::kAotInductor;
  EXPECT_THAT(ModesOf(TuningSpaceOf(Settings({3, 8, 8}), version, Machine(4))),
              ElementsAre("aotinductor"));
}

TEST(TuningSpace, WhatTheConfigurationSaysIsFixed) {
  ModelSettings settings = Settings({3, 8, 8});
  settings.intra_op_threads = 2;
  settings.instance_groups = {{.kind = DeviceKind::kCpu, .count = 3, .gpus = {}}};
  settings.execution.channels_last = true;
  settings.execution.wait = ThreadWait::kActive;
  const auto space = TuningSpaceOf(settings, ModelVersion(), Machine(4));
  ASSERT_TRUE(space.ok());
  EXPECT_EQ(space->threads, 2);
  EXPECT_EQ(space->replicas, 3);
  EXPECT_FALSE(space->varies_waiting);
  EXPECT_THAT(ModesOf(space), ElementsAre("torchscript channels-last active"));
}

TEST(TuningSpace, NothingToChooseOnGpusOrInSeveralGroups) {
  ModelSettings settings = Settings({4});
  Hardware machine = Machine(4);
  machine.accelerators = {{.index = 0, .name = "GPU"}};
  EXPECT_THAT(std::string(TuningSpaceOf(settings, ModelVersion(), machine).status().message()),
              HasSubstr("GPUs"));
  settings.instance_groups = {{.kind = DeviceKind::kCpu, .count = {}, .gpus = {}}};
  EXPECT_TRUE(TuningSpaceOf(settings, ModelVersion(), machine).ok());
  settings.instance_groups.resize(2);
  EXPECT_EQ(TuningSpaceOf(settings, ModelVersion(), machine).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace millrace
