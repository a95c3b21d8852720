// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/cpu_topology.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/hardware/cpu_list.h"
#include "server/hardware/text_file.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

std::vector<int> ReadCpuList(const fs::path& path) {
  return ParseCpuList(ReadTextFile(path).value_or(""));
}

// The lowest CPU of the first of the files that lists any; -1 where none does.
int LowestCpu(const std::vector<fs::path>& files) {
  for (const fs::path& file : files) {
    const std::vector<int> cpus = ReadCpuList(file);
    if (!cpus.empty()) return cpus.front();
  }
  return -1;
}

// The file that lists who shares the L3 cache of the CPU in `folder`; empty where none does.
fs::path L3SharersFile(const fs::path& folder) {
  for (int index = 0;; ++index) {
    const fs::path cache = folder / absl::StrCat("cache/index", index);
    const std::optional<std::string> level = ReadTextFile(cache / "level");
    if (!level) return {};
    if (absl::StripAsciiWhitespace(*level) == "3") return cache / "shared_cpu_list";
  }
}

// The NUMA node of each CPU that a node lists.
std::map<int, int> ReadNodes(const fs::path& root) {
  std::map<int, int> node_of_cpu;
  std::error_code error;  // A kernel without NUMA has no such folder.
  for (const auto& entry : fs::directory_iterator(root / "sys/devices/system/node", error)) {
    const std::string name = entry.path().filename().string();
    absl::string_view number = name;
    int node = 0;
    if (!absl::ConsumePrefix(&number, "node") || !absl::SimpleAtoi(number, &node)) continue;
    for (int cpu : ReadCpuList(entry.path() / "cpulist")) node_of_cpu[cpu] = node;
  }
  return node_of_cpu;
}

CpuPlace ReadPlace(const fs::path& cpus_folder, int cpu, const std::map<int, int>& node_of_cpu) {
  const fs::path folder = cpus_folder / absl::StrCat("cpu", cpu);
  const fs::path topology = folder / "topology";
  CpuPlace place;
  place.cpu = cpu;
  place.core = LowestCpu({topology / "core_cpus_list", topology / "thread_siblings_list"});
  if (place.core < 0) place.core = cpu;
  const auto node = node_of_cpu.find(cpu);
  place.node = node == node_of_cpu.end() ? 0 : node->second;
  place.cache = LowestCpu(
      {L3SharersFile(folder), topology / "package_cpus_list", topology / "core_siblings_list"});
  return place;
}

template <typename Member>
int CountDistinct(const std::vector<CpuPlace>& cpus, Member member) {
  std::set<int> values;
  for (const CpuPlace& place : cpus) values.insert(place.*member);
  return static_cast<int>(values.size());
}

}  // namespace

CpuPlace CpuTopology::Find(int cpu) const {
  const auto found =
      std::lower_bound(cpus.begin(), cpus.end(), cpu,
                       [](const CpuPlace& place, int wanted) { return place.cpu < wanted; });
  if (found != cpus.end() && found->cpu == cpu) return *found;
  return CpuPlace{cpu, cpu, 0, 0};
}

int CpuTopology::cores() const { return CountDistinct(cpus, &CpuPlace::core); }
int CpuTopology::caches() const { return CountDistinct(cpus, &CpuPlace::cache); }
int CpuTopology::nodes() const { return CountDistinct(cpus, &CpuPlace::node); }

CpuTopology ReadCpuTopology(const fs::path& root) {
  const fs::path cpus_folder = root / "sys/devices/system/cpu";
  const std::map<int, int> node_of_cpu = ReadNodes(root);
  CpuTopology topology;
  std::map<int, int> lowest_of_node;
  for (int cpu : ReadCpuList(cpus_folder / "online")) {
    CpuPlace place = ReadPlace(cpus_folder, cpu, node_of_cpu);
    const int lowest = lowest_of_node.try_emplace(place.node, cpu).first->second;
    if (place.cache < 0) place.cache = lowest;
    topology.cpus.push_back(place);
  }
  return topology;
}

}  // namespace millrace
