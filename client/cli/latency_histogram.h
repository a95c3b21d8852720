// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace millrace {
inline namespace client {

// Counts latencies of a run of any length in little memory: in steps of 2 %, from 10 us to days.
// Thread-compatible.
class LatencyHistogram {
 public:
  void Add(absl::Duration latency);
  void Add(const LatencyHistogram& others);

  int64_t count() const { return count_; }
  // The latency that this fraction of them doesn't exceed, 1 % off at most; zero without any.
  absl::Duration Percentile(double fraction) const;

 private:
  std::array<int64_t, 1200> steps_ = {};
  int64_t count_ = 0;
};

}  // namespace client
}  // namespace millrace
