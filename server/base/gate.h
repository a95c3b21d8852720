// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/base/clock.h"
#include "server/base/mutex.h"

namespace millrace {

// Counts those who are inside, and lets a closer wait until they have left. Thread-safe.
class Gate {
 public:
  // Goes in. False once the gate is closed: then nothing is owed.
  bool TryEnter() ABSL_LOCKS_EXCLUDED(mutex_);

  // Goes out. REQUIRES: a TryEnter() of the caller's was true.
  void Leave() ABSL_LOCKS_EXCLUDED(mutex_);

  // Lets nobody in any more and waits until all have left or `deadline` has passed. True when all
  // have left. Blocks; may be called again.
  bool Close(Clock& clock, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many are inside.
  int inside() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable Mutex mutex_;
  CondVar left_;
  int inside_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace
