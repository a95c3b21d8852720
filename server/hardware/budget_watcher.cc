// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/budget_watcher.h"

#include <utility>

namespace millrace {
namespace {

// The same limits, whichever file sets them.
bool Alike(const CpuBudget& a, const CpuBudget& b) {
  return a.cpus == b.cpus && a.quota == b.quota && a.exclusive == b.exclusive;
}

}  // namespace

BudgetWatcher::BudgetWatcher(CpuBudget known, std::filesystem::path root)
    : root_(std::move(root)), in_force_(std::move(known)), seen_(in_force_) {}

std::optional<CpuBudget> BudgetWatcher::Look() {
  CpuBudget now = ReadCpuBudget(root_);
  const bool stands_still = Alike(now, seen_);
  seen_ = std::move(now);
  if (!stands_still || Alike(seen_, in_force_)) return std::nullopt;
  in_force_ = seen_;
  return in_force_;
}

}  // namespace millrace
