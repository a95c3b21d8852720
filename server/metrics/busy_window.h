// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace millrace {

// Remembers how much busy time fell into each of the last seconds. Thread-safe; takes no lock and
// allocates nothing. All times are of one monotonic clock.
class BusyWindow {
 public:
  // Where the window that ends `now` begins: 14 whole seconds and the one that has begun.
  static absl::Time Begin(absl::Time now);

  // Adds the interval of `busy` that ends at `end`. What lies before the window is forgotten.
  void Add(absl::Time end, absl::Duration busy);

  // The busy time that fell into the window that ends `now`.
  absl::Duration Sum(absl::Time now) const;

 private:
  static constexpr int64_t kSeconds = 15;
  static constexpr size_t kSlots = 16;

  void AddToSlot(uint64_t second, uint64_t nanoseconds);

  // Slot i holds a second whose number is i modulo kSlots. Its number's low 24 bits stand in the
  // high bits, the busy nanoseconds in the low 40, so that both change as one.
  std::array<std::atomic<uint64_t>, kSlots> slots_{};
};

}  // namespace millrace
