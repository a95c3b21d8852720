// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/core_leases.h"

#include <algorithm>

namespace millrace {

void CoreLeases::SetSlots(int slots) {
  MutexLock lock(mutex_);
  slots_ = slots;
}

bool CoreLeases::TryAcquire(const std::shared_ptr<Claimant>& claimant, int cores) {
  MutexLock lock(mutex_);
  // The dead go first: they claim nothing, and a new claimant may live at the address of one.
  std::erase_if(line_, [](const Waiting& waiting) { return waiting.claimant.expired(); });
  const bool first = line_.empty() || line_.front().identity == claimant.get();
  if (first && Fits(cores)) {
    taken_ += cores;
    if (!line_.empty()) line_.pop_front();
    return true;
  }
  const auto place = std::find_if(line_.begin(), line_.end(), [&](const Waiting& waiting) {
    return waiting.identity == claimant.get();
  });
  if (place == line_.end()) {
    line_.push_back({claimant, claimant.get(), cores});
  } else {
    place->cores = cores;
  }
  return false;
}

void CoreLeases::Withdraw(const Claimant& claimant) {
  MutexLock lock(mutex_);
  std::erase_if(line_, [&](const Waiting& waiting) { return waiting.identity == &claimant; });
}

void CoreLeases::Release(int cores) {
  {
    MutexLock lock(mutex_);
    taken_ -= cores;
  }
  WakeFirst();
}

void CoreLeases::WakeFirst() {
  std::shared_ptr<Claimant> next;
  {
    MutexLock lock(mutex_);
    while (!line_.empty() && next == nullptr) {
      if (!Fits(line_.front().cores)) return;
      next = line_.front().claimant.lock();
      if (next == nullptr) line_.pop_front();
    }
  }
  if (next != nullptr) next->TryAgain();
}

}  // namespace millrace
