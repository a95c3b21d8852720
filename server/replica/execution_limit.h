// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/base/mutex.h"
#include "server/inference/row_shape.h"

namespace millrace {

// For how long a batch may run until its replica counts as hung. As configured, or else twenty
// times as long as the longest run so far, and no less than ten seconds. The first runs of a shape
// may have to be compiled; they are given as much time as loading. Thread-safe.
class ExecutionLimit {
 public:
  struct Options {
    absl::Duration configured = absl::InfiniteDuration();  // Infinite: it is learnt.
    absl::Duration first_runs = absl::Minutes(10);
  };

  explicit ExecutionLimit(Options options) : options_(options) {}

  // The limit of a batch of rows of one shape. `share` is below 1 for a part of a batch that is run
  // again: it should take as much less time, and whoever hangs is found sooner.
  absl::Duration For(const RowShape& shape, double share) const ABSL_LOCKS_EXCLUDED(mutex_);

  // The limit of a whole batch of any shape, but for its first runs.
  absl::Duration Usual() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes a batch that has run.
  void Ran(const RowShape& shape, absl::Duration took) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Duration Whole() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  mutable Mutex mutex_;
  absl::flat_hash_map<RowShape, int> runs_ ABSL_GUARDED_BY(mutex_);  // As far as they matter.
  absl::Duration longest_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
