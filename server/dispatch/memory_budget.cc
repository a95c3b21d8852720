// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/memory_budget.h"

#include <algorithm>

namespace millrace {

bool MemoryBudget::TryTakeNow(int64_t bytes) {
  const int64_t before = taken_.fetch_add(bytes);
  if (before == 0 || bytes <= limit_ - before) return true;
  taken_.fetch_sub(bytes);
  return false;
}

bool MemoryBudget::TryTake(const std::shared_ptr<Claimant>& claimant, int64_t bytes) {
  if (TryTakeNow(bytes)) return true;
  MutexLock lock(mutex_);
  const bool waits = std::any_of(waiting_.begin(), waiting_.end(), [&](const auto& other) {
    return !other.owner_before(claimant) && !claimant.owner_before(other);
  });
  if (!waits) waiting_.push_back(claimant);
  somebody_waits_ = true;
  return TryTakeNow(bytes);  // Whoever gives back from here on sees that somebody waits.
}

void MemoryBudget::GiveBack(int64_t bytes) {
  taken_.fetch_sub(bytes);
  if (!somebody_waits_) return;
  std::vector<std::weak_ptr<Claimant>> waiting;
  {
    MutexLock lock(mutex_);
    somebody_waits_ = false;
    waiting.swap(waiting_);
  }
  for (const auto& one : waiting) {
    if (const auto claimant = one.lock()) claimant->TryAgain();
  }
}

}  // namespace millrace
