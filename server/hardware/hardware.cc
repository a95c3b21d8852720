// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/hardware.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/hardware/cpu_list.h"

namespace millrace {
namespace {

std::string Plural(int count, const char* noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

std::string DescribeAccelerator(const Accelerator& accelerator) {
  constexpr double kGib = 1 << 30;
  return absl::StrFormat("GPU %d %s (%.1f of %.1f GiB free)", accelerator.index, accelerator.name,
                         static_cast<double>(accelerator.free_memory_bytes) / kGib,
                         static_cast<double>(accelerator.total_memory_bytes) / kGib);
}

}  // namespace

Hardware DetectHardware(const std::filesystem::path& root) {
  Hardware hardware;
  hardware.cpu = ReadCpuBudget(root);
  hardware.cpu_model = ReadCpuModel(root);
  hardware.topology = ReadCpuTopology(root);
  return hardware;
}

std::string DescribeHardware(const Hardware& hardware) {
  const CpuTopology& topology = hardware.topology;
  return absl::StrCat("CPU budget ", DescribeBudget(hardware.cpu),
                      "; machine: ", Plural(topology.cores(), "physical core"), ", ",
                      Plural(topology.caches(), "L3 cache"), ", ",
                      Plural(topology.nodes(), "NUMA node"), "; ",
                      hardware.accelerators.empty()
                          ? "no GPU"
                          : absl::StrJoin(hardware.accelerators, ", ",
                                          [](std::string* out, const Accelerator& accelerator) {
                                            absl::StrAppend(out, DescribeAccelerator(accelerator));
                                          }));
}

}  // namespace millrace
