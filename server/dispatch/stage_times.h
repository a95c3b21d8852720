// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace millrace {

// The median of what was measured last. Thread-compatible.
class RecentMedian {
 public:
  void Add(absl::Duration value) { values_[added_++ % kValues] = value; }

  // Zero where nothing has been added.
  absl::Duration Get() const {
    const size_t count = std::min(added_, kValues);
    if (count == 0) return absl::ZeroDuration();
    std::array<absl::Duration, kValues> sorted = values_;
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(count / 2);
    std::nth_element(sorted.begin(), middle, sorted.begin() + static_cast<std::ptrdiff_t>(count));
    return *middle;
  }

 private:
  static constexpr size_t kValues = 63;

  std::array<absl::Duration, kValues> values_;
  size_t added_ = 0;
};

// What a row of a model took lately in each stage, in the time of one core. Thread-compatible.
class StageTimes {
 public:
  void Decoded(absl::Duration took) { decode_.Add(took); }

  // Rows that were decoded have been written into a batch.
  void Filled(int64_t rows, absl::Duration took) { fill_.Add(took / rows); }

  // `cores`: that the batch occupied.
  void Executed(int64_t rows, absl::Duration took, int cores) {
    execute_.Add(took * cores / rows);
    rows_ += rows;
  }

  struct Medians {
    absl::Duration prepare;  // Decoding a row and writing it into its batch; zero where none was.
    absl::Duration execute;  // Zero on GPUs.
    int64_t rows = 0;        // That have run, ever.
  };
  Medians medians() const {
    return {.prepare = decode_.Get() + fill_.Get(), .execute = execute_.Get(), .rows = rows_};
  }

 private:
  RecentMedian decode_, fill_, execute_;
  int64_t rows_ = 0;
};

}  // namespace millrace
