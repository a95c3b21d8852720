// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "server/metrics/sample.h"
#include "server/metrics/sharded.h"

namespace millrace {

// Counts observations in buckets of fixed upper bounds, as Prometheus does: a value on a bound
// falls into that bound's bucket. Thread-safe; takes no lock and allocates nothing.
class Histogram {
 public:
  // `bounds` ascend, are at most kMaxBounds, and live for ever.
  static constexpr size_t kMaxBounds = 20;
  explicit Histogram(absl::Span<const int64_t> bounds) : bounds_(bounds) {}

  // Counts `value`, negative ones as 0.
  void Observe(int64_t value);

  // Adds what was observed to `total`, which is empty or came from a histogram of the same bounds.
  // `unit` is what 1 counts in the exposition: 1e-9 turns nanoseconds into seconds.
  void AddTo(HistogramValue& total, double unit) const;

 private:
  absl::Span<const int64_t> bounds_;
  std::array<Counter, kMaxBounds + 1> counts_;
  Counter sum_;
};

}  // namespace millrace
