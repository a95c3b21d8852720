// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace millrace {

// Which CPUs a machine has. A plain value.
struct CpuModel {
  std::string name = "unknown";  // "AMD EPYC 7B13"; of ARM, implementer and part.
  // The vector instructions that models gain by, as PyTorch names them: "AVX2 AVX512 AVX512_BF16".
  // "baseline" where there are none of them.
  std::string isa = "baseline";
  bool computes_bfloat16 = false;  // Else BF16 is emulated, and slower than FP32.
};

// Reads proc/cpuinfo below `root`, where the first CPU stands for all.
CpuModel ReadCpuModel(const std::filesystem::path& root);

}  // namespace millrace
