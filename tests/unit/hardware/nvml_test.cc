// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/nvml.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(Nvml, IsNotThereWithoutTheLibrary) {
  EXPECT_EQ(Nvml::Load("libmillrace-no-such-library.so"), nullptr);
}

TEST(Nvml, IsNotThereWhereTheLibraryIsAnother) { EXPECT_EQ(Nvml::Load("libc.so.6"), nullptr); }

TEST(Nvml, TellsHowFullAndHowBusyEachGpuIs) {
  const auto nvml = Nvml::Load(MILLRACE_FAKE_NVML);
  ASSERT_NE(nvml, nullptr);
  const std::vector<Nvml::Gpu> gpus = nvml->Read();
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[0].index, 0);
  EXPECT_EQ(gpus[0].uuid, "GPU-first");
  EXPECT_EQ(gpus[0].utilisation, 0.75);
  EXPECT_EQ(gpus[0].memory_used_bytes, 600u);
  EXPECT_EQ(gpus[0].memory_total_bytes, 1000u);
  EXPECT_EQ(gpus[0].power_watts, 123.5);
}

TEST(Nvml, LeavesOutWhatAGpuDoesNotTell) {
  const auto nvml = Nvml::Load(MILLRACE_FAKE_NVML);
  ASSERT_NE(nvml, nullptr);
  const std::vector<Nvml::Gpu> gpus = nvml->Read();
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[1].memory_used_bytes, 601u);
  EXPECT_EQ(gpus[1].utilisation, std::nullopt);
  EXPECT_EQ(gpus[1].power_watts, std::nullopt);
}

}  // namespace
}  // namespace millrace
