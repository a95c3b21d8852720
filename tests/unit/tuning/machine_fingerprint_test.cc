// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tuning/machine_fingerprint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// A machine of four CPUs as its files tell.
Hardware Machine(const std::string& cpuinfo, const std::string& allowed = "0-3") {
  FileTree tree;
  tree.Write("proc/cpuinfo", cpuinfo)
      .Write("sys/devices/system/cpu/online", "0-3")
      .Write("proc/self/status", "Cpus_allowed_list:\t" + allowed);
  return DetectHardware(tree.root());
}

constexpr char kEpyc[] =
    "processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu sse2 avx avx2 fma\n\n"
    "processor\t: 1\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu sse2 avx avx2 fma\n";
constexpr char kXeon[] =
    "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8481C\n"
    "flags\t\t: avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8\n";
constexpr char kGraviton[] =
    "processor\t: 0\nFeatures\t: fp asimd sve bf16\nCPU implementer\t: 0x41\n"
    "CPU part\t: 0xd40\n";

TEST(MachineFingerprint, NamesProcessorInstructionsBudgetAndLibraries) {
  Hardware hardware = Machine(kEpyc);
  hardware.cpu.quota = 4.0 / 3;
  EXPECT_EQ(Describe(FingerprintOf(hardware, "2.13.0")),
            "AMD EPYC 7B13 (AVX2), 1.33 cores, no GPU, libtorch 2.13.0");
  hardware.accelerators = {{0, "NVIDIA L4", 0, 0}, {1, "NVIDIA A10", 0, 0}};
  EXPECT_EQ(FingerprintOf(hardware, "2.13.0").gpus,
            (std::vector<std::string>{"NVIDIA L4", "NVIDIA A10"}));
}

TEST(MachineFingerprint, KnowsWhoComputesBfloat16) {
  EXPECT_FALSE(Machine(kEpyc).cpu_model.computes_bfloat16);
  const CpuModel xeon = Machine(kXeon).cpu_model;
  EXPECT_TRUE(xeon.computes_bfloat16);
  EXPECT_EQ(xeon.isa, "AVX2 AVX512 AVX512_BF16 AMX_TILE AMX_INT8 AMX_BF16");
  const CpuModel arm = Machine(kGraviton).cpu_model;
  EXPECT_TRUE(arm.computes_bfloat16);
  EXPECT_EQ(arm.name, "ARM 0x41 0xd40");
  EXPECT_EQ(arm.isa, "NEON SVE BF16");
}

TEST(MachineFingerprint, UnknownCpusAreUnknownAndHaveNothing) {
  FileTree tree;
  const CpuModel nothing = ReadCpuModel(tree.root());
  EXPECT_EQ(nothing.name, "unknown");
  EXPECT_EQ(nothing.isa, "baseline");
  EXPECT_FALSE(nothing.computes_bfloat16);
}

TEST(MachineFingerprint, DifferenceSaysWhatIsOther) {
  const MachineFingerprint four = FingerprintOf(Machine(kEpyc), "2.13.0");
  EXPECT_EQ(Difference(four, four), "");
  const MachineFingerprint two = FingerprintOf(Machine(kEpyc, "0-1"), "2.13.0");
  EXPECT_NE(four, two);
  EXPECT_EQ(Difference(four, two), "2 cores instead of 4 cores");
  MachineFingerprint other = FingerprintOf(Machine(kXeon), "2.14.0");
  other.gpus = {"NVIDIA L4"};
  EXPECT_THAT(
      Difference(four, other),
      AllOf(HasSubstr("Platinum 8481C instead of AMD EPYC 7B13"),
            HasSubstr("AMX_BF16 instead of AVX2"), HasSubstr("GPUs NVIDIA L4 instead of no GPU"),
            HasSubstr("libtorch 2.14.0 instead of libtorch 2.13.0"), Not(HasSubstr("cores"))));
}

TEST(MachineFingerprint, EachMachineHasAPlanOfItsOwnWhosePathStaysTheSame) {
  const MachineFingerprint machine = {
      .cpu = "AMD EPYC 7B13", .isa = "AVX2", .cores = 2, .gpus = {}, .libtorch = "2.13.0"};
  EXPECT_EQ(PlanPath("models", machine), "models/.millrace/plan-e8076305ccd85e1b.json");
  MachineFingerprint other = machine;
  other.cores = 1.5;
  EXPECT_NE(PlanPath("models", machine), PlanPath("models", other));
}

}  // namespace
}  // namespace millrace
