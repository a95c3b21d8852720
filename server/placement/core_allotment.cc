// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/placement/core_allotment.h"

#include <algorithm>
#include <map>
#include <utility>

#include "server/base/check.h"

namespace millrace {

CoreAllotment::CoreAllotment(const CpuTopology& topology, const std::vector<int>& cpus) {
  MILLRACE_CHECK(!cpus.empty(), "A CPU budget has at least one CPU.");
  for (int cpu : cpus) cpus_.push_back({topology.Find(cpu), 0});
}

std::vector<int> CoreAllotment::Take(int threads) {
  const size_t size = std::min(static_cast<size_t>(threads), cpus_.size());
  std::vector<Cpu*> chosen = Choose(size);
  std::map<int, int> threads_of_core;
  for (const Cpu& cpu : cpus_) threads_of_core[cpu.place.core] += cpu.threads;
  const auto load = [&](const Cpu* cpu) {
    return std::pair(cpu->threads, threads_of_core[cpu->place.core]);
  };
  std::stable_sort(chosen.begin(), chosen.end(),
                   [&](const Cpu* a, const Cpu* b) { return load(a) < load(b); });
  chosen.resize(size);
  std::vector<int> taken;
  for (Cpu* cpu : chosen) {
    ++cpu->threads;
    taken.push_back(cpu->place.cpu);
  }
  std::sort(taken.begin(), taken.end());
  return taken;
}

void CoreAllotment::Occupy(const std::vector<int>& cpus) {
  for (Cpu& cpu : cpus_) {
    if (std::find(cpus.begin(), cpus.end(), cpu.place.cpu) != cpus.end()) ++cpu.threads;
  }
}

// Returns at least `size` CPUs to take from, by the first of the preferences that has them.
std::vector<CoreAllotment::Cpu*> CoreAllotment::Choose(size_t size) {
  constexpr std::pair<bool, Scope> kPreferences[] = {
      {true, Scope::kCache}, {true, Scope::kNode},    {false, Scope::kCache},
      {false, Scope::kNode}, {true, Scope::kMachine}, {false, Scope::kMachine},
  };
  for (int level = 0;; ++level) {  // Ends: at the highest level every CPU is a candidate.
    for (const auto& [free_cores, scope] : kPreferences) {
      std::vector<Cpu*> group = BestGroup(Candidates(level, free_cores), scope, size);
      if (!group.empty()) return group;
    }
  }
}

// The CPUs that carry at most `level` threads; with `free_cores` one for each physical core of
// which that is true on all its CPUs.
std::vector<CoreAllotment::Cpu*> CoreAllotment::Candidates(int level, bool free_cores) {
  std::map<int, std::vector<Cpu*>> cpus_of_core;
  for (Cpu& cpu : cpus_) cpus_of_core[free_cores ? cpu.place.core : cpu.place.cpu].push_back(&cpu);
  std::vector<Cpu*> candidates;
  for (const auto& [core, cpus] : cpus_of_core) {
    const auto [least, most] =
        std::minmax_element(cpus.begin(), cpus.end(),
                            [](const Cpu* a, const Cpu* b) { return a->threads < b->threads; });
    if ((*most)->threads <= level) candidates.push_back(*least);
  }
  return candidates;
}

// The group of `candidates` in one cache, node or machine that has at least `size` of them: the
// largest one of the largest node. Empty where none has.
std::vector<CoreAllotment::Cpu*> CoreAllotment::BestGroup(const std::vector<Cpu*>& candidates,
                                                          Scope scope, size_t size) const {
  std::map<std::pair<int, int>, std::vector<Cpu*>> groups;
  std::map<int, size_t> size_of_node;
  for (Cpu* cpu : candidates) {
    const int node = scope == Scope::kMachine ? 0 : cpu->place.node;
    const int cache = scope == Scope::kCache ? cpu->place.cache : 0;
    groups[{node, cache}].push_back(cpu);
    ++size_of_node[node];
  }
  std::vector<Cpu*> best;
  std::pair<size_t, size_t> best_rank;
  for (auto& [place, group] : groups) {
    const std::pair<size_t, size_t> rank(size_of_node[place.first], group.size());
    if (group.size() < size || rank <= best_rank) continue;
    best_rank = rank;
    best = std::move(group);
  }
  return best;
}

}  // namespace millrace
