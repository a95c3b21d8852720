// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <memory>

#include "server/base/mutex.h"
#include "server/dispatch/claimant.h"

namespace millrace {

// Shares the budgeted cores among models: at most `slots` cores' worth of batches run at once,
// granted to the models in turn, so that several models on one machine don't oversubscribe it.
// Thread-safe.
//
// Invariants:
//  1. The leases given out never exceed `slots`, but for a single one that alone is wider.
//  2. A claimant that was refused waits in line; nobody overtakes it, so each gets its turn.
class CoreLeases {
 public:
  explicit CoreLeases(int slots) : slots_(slots) {}

  // Makes it so many slots; where there are fewer than before, leases that are out come back first.
  // Call WakeFirst() afterwards.
  void SetSlots(int slots) ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes `cores` for a batch. False when they aren't free or others wait: then the claimant
  // stands in line, and TryAgain() is called when it is its turn.
  bool TryAcquire(const std::shared_ptr<Claimant>& claimant, int cores) ABSL_LOCKS_EXCLUDED(mutex_);

  // Leaves the line, e.g. because nothing is left to run.
  void Withdraw(const Claimant& claimant) ABSL_LOCKS_EXCLUDED(mutex_);

  // Gives cores back and calls the next in line. Call without locks held.
  void Release(int cores) ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls the first in line where there are free cores. Call without locks held.
  void WakeFirst() ABSL_LOCKS_EXCLUDED(mutex_);

  int slots() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return slots_;
  }

 private:
  struct Waiting {
    std::weak_ptr<Claimant> claimant;
    const Claimant* identity;
    int cores;
  };

  // A lease wider than all slots needs all of them.
  bool Fits(int cores) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return taken_ == 0 || taken_ + cores <= slots_;
  }

  mutable Mutex mutex_;
  int taken_ ABSL_GUARDED_BY(mutex_) = 0;  // By the leases that are out, however wide they are.
  std::deque<Waiting> line_ ABSL_GUARDED_BY(mutex_);
  int slots_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
