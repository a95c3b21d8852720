// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace millrace {

// Remembers how much was added in each of the last seconds. Thread-safe; takes no lock and
// allocates nothing. All times are of one monotonic clock.
class RecentSum {
 public:
  // Where the window that ends `now` begins: 14 whole seconds and the one that has begun.
  static absl::Time Begin(absl::Time now);

  // Adds `amount` to the second in which `when` lies. A second's sum stays below 2^40.
  void Add(absl::Time when, uint64_t amount);

  // What was added in the window that ends `now`.
  uint64_t Sum(absl::Time now) const;

 private:
  static constexpr int64_t kSeconds = 15;
  static constexpr size_t kSlots = 16;

  // Slot i holds a second whose number is i modulo kSlots. Its number's low 24 bits stand in the
  // high bits, its sum in the low 40, so that both change as one.
  std::array<std::atomic<uint64_t>, kSlots> slots_{};
};

}  // namespace millrace
