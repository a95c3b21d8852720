// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include "server/metrics/recent_sum.h"

namespace millrace {

// Remembers how much busy time fell into each of the last seconds. Thread-safe; takes no lock and
// allocates nothing. All times are of one monotonic clock.
class BusyWindow {
 public:
  // Where the window that ends `now` begins; see RecentSum.
  static absl::Time Begin(absl::Time now) { return RecentSum::Begin(now); }

  // Adds the interval of `busy` that ends at `end`. What lies before the window is forgotten.
  void Add(absl::Time end, absl::Duration busy);

  // The busy time that fell into the window that ends `now`.
  absl::Duration Sum(absl::Time now) const;

 private:
  RecentSum nanoseconds_;
};

}  // namespace millrace
