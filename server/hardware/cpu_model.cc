// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/cpu_model.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/hardware/text_file.h"

namespace millrace {
namespace {

// What the kernel's flags stand for, narrow ones first.
struct Extension {
  const char* flag;
  const char* name;
  bool bfloat16 = false;
};
constexpr Extension kExtensions[] = {
    {"avx2", "AVX2"},
    {"avx512f", "AVX512"},
    {"avx512_vnni", "AVX512_VNNI"},
    {"avx512_bf16", "AVX512_BF16", true},
    {"avx512_fp16", "AVX512_FP16"},
    {"avx10_2", "AVX10_2"},
    {"amx_tile", "AMX_TILE"},
    {"amx_int8", "AMX_INT8"},
    {"amx_bf16", "AMX_BF16", true},
    {"amx_fp16", "AMX_FP16"},
    {"asimd", "NEON"},
    {"sve", "SVE"},
    {"sve2", "SVE2"},
    {"i8mm", "I8MM"},
    {"bf16", "BF16", true},
};

// The lines "key : value" up to the first empty one.
std::map<std::string, std::string> FirstCpu(const std::string& cpuinfo) {
  std::map<std::string, std::string> values;
  for (const absl::string_view line : absl::StrSplit(cpuinfo, '\n')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    const absl::string_view key = absl::StripAsciiWhitespace(parts.first);
    if (key.empty()) break;
    values.emplace(key, absl::StripAsciiWhitespace(parts.second));
  }
  return values;
}

}  // namespace

CpuModel ReadCpuModel(const std::filesystem::path& root) {
  std::map<std::string, std::string> cpu =
      FirstCpu(ReadTextFile(root / "proc/cpuinfo").value_or(""));
  CpuModel model;
  if (!cpu["model name"].empty()) {
    model.name = cpu["model name"];
  } else if (!cpu["CPU part"].empty()) {
    model.name = absl::StrCat("ARM ", cpu["CPU implementer"], " ", cpu["CPU part"]);
  }
  const std::string flags = absl::StrCat(cpu["flags"], " ", cpu["Features"]);
  const std::set<std::string> there = absl::StrSplit(flags, ' ', absl::SkipEmpty());
  std::vector<std::string> names;
  for (const Extension& extension : kExtensions) {
    if (there.count(extension.flag) == 0) continue;
    names.emplace_back(extension.name);
    model.computes_bfloat16 |= extension.bfloat16;
  }
  if (!names.empty()) model.isa = absl::StrJoin(names, " ");
  return model;
}

}  // namespace millrace
