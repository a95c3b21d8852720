// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/base/mutex.h"
#include "server/dispatch/claimant.h"

namespace millrace {

// Bytes that the requests of all models may hold together. Thread-safe.
class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t bytes) : limit_(bytes) {}

  // Takes `bytes`; where nothing is taken, any number. False where they aren't there: then
  // TryAgain() is called once some are given back.
  bool TryTake(const std::shared_ptr<Claimant>& claimant, int64_t bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Gives bytes back. Call without locks held.
  void GiveBack(int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t limit() const { return limit_; }
  int64_t taken() const { return taken_.load(); }

 private:
  bool TryTakeNow(int64_t bytes);

  const int64_t limit_;
  std::atomic<int64_t> taken_{0};
  std::atomic<bool> somebody_waits_{false};
  Mutex mutex_;
  std::vector<std::weak_ptr<Claimant>> waiting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
