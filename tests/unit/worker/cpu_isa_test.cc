// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/cpu_isa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr char kZen3[] =
    "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse4_2 avx avx2 fma\n\n"
    "processor\t: 1\nflags\t\t: fpu avx512f\n";
constexpr char kArm[] = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes\n";

TEST(CpuIsa, WhatTheMachineHasIsAccepted) {
  EXPECT_TRUE(CheckCpuIsa("AVX2", kZen3).ok());
  EXPECT_TRUE(CheckCpuIsa("ASIMD", kArm).ok());
  EXPECT_TRUE(CheckCpuIsa("NEON", kArm).ok());
}

TEST(CpuIsa, APackageWithoutAVectorSetRunsAnywhere) { EXPECT_TRUE(CheckCpuIsa("", kArm).ok()); }

TEST(CpuIsa, WhatIsMissingIsNamed) {
  const absl::Status status = CheckCpuIsa("AVX512 AVX512_VNNI AMX_TILE", kZen3);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("lacks avx512f, avx512dq, avx512vl, avx512bw, avx512_vnni, amx_tile"));
}

TEST(CpuIsa, AnUnknownSetIsRefused) {
  EXPECT_FALSE(CheckCpuIsa("AVX9000", kZen3).ok());
  EXPECT_FALSE(CheckCpuIsa("AVX2", kArm).ok());
}

}  // namespace
}  // namespace millrace
