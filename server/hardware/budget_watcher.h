// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>

#include "server/hardware/cpu_budget.h"

namespace millrace {

// Notices that the CPU budget has changed in place: a quota was written anew, a cpuset given other
// CPUs, the process moved by taskset. Who resizes a container writes several files one after the
// other, so a change counts once two looks in a row have seen the same. Thread-compatible.
class BudgetWatcher {
 public:
  // `known` is in force. Reads below `root`, as ReadCpuBudget() does.
  explicit BudgetWatcher(CpuBudget known, std::filesystem::path root = "/");

  // Looks; call it regularly, say once a second. Returns the budget where it is another than the
  // one in force and is as the look before saw it; from then on it is the one in force.
  std::optional<CpuBudget> Look();

 private:
  const std::filesystem::path root_;
  CpuBudget in_force_;
  CpuBudget seen_;  // By the last look.
};

}  // namespace millrace
