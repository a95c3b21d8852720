// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/cpu_isa.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace millrace {
namespace {

// The flags of the first processor: "flags" on x86, "Features" on ARM.
std::set<std::string> CpuFlags(const std::string& cpuinfo) {
  for (const absl::string_view line : absl::StrSplit(cpuinfo, '\n')) {
    if (!absl::StartsWith(line, "flags") && !absl::StartsWith(line, "Features")) continue;
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    return absl::StrSplit(parts.second, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  }
  return {};
}

// The kernel's flags for one of torch's names; its own lower-case name where that is the same.
std::vector<std::string> KernelFlags(const std::string& name) {
  if (name == "avx512") return {"avx512f", "avx512dq", "avx512vl", "avx512bw"};
  if (name == "neon") return {"asimd"};
  return {name};
}

}  // namespace

absl::Status CheckCpuIsa(const std::string& isa, const std::string& cpuinfo) {
  const std::set<std::string> flags = CpuFlags(cpuinfo);
  std::vector<std::string> missing;
  const std::vector<std::string> names =
      absl::StrSplit(absl::AsciiStrToLower(isa), absl::ByAnyChar(" ,"), absl::SkipEmpty());
  for (const std::string& name : names) {
    for (const std::string& flag : KernelFlags(name)) {
      if (flags.count(flag) == 0) missing.push_back(flag);
    }
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the package was compiled for the CPU instruction set ", isa, ", but this machine lacks ",
      absl::StrJoin(missing, ", "), "; compile it on a machine like this one"));
}

}  // namespace millrace
