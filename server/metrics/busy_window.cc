// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/busy_window.h"

#include <algorithm>

namespace millrace {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int kBusyBits = 40;
constexpr uint64_t kBusyMask = (uint64_t{1} << kBusyBits) - 1;
constexpr uint64_t kNumberMask = (uint64_t{1} << (64 - kBusyBits)) - 1;

// Whether second `number` comes after `other`; both are known modulo 2^24 only.
bool IsLater(uint64_t number, uint64_t other) {
  const uint64_t ahead = (number - other) & kNumberMask;
  return ahead != 0 && ahead <= kNumberMask / 2;
}

}  // namespace

absl::Time BusyWindow::Begin(absl::Time now) {
  const int64_t second = absl::ToUnixNanos(now) / kSecond;
  return absl::FromUnixNanos(std::max<int64_t>(0, second - kSeconds + 1) * kSecond);
}

void BusyWindow::Add(absl::Time end, absl::Duration busy) {
  const int64_t until = absl::ToUnixNanos(end);
  int64_t from = absl::ToUnixNanos(std::max(end - busy, Begin(end)));
  while (from < until) {
    const int64_t second = from / kSecond;
    const int64_t piece_end = std::min(until, (second + 1) * kSecond);
    AddToSlot(static_cast<uint64_t>(second), static_cast<uint64_t>(piece_end - from));
    from = piece_end;
  }
}

void BusyWindow::AddToSlot(uint64_t second, uint64_t nanoseconds) {
  std::atomic<uint64_t>& slot = slots_[second % kSlots];
  const uint64_t number = second & kNumberMask;
  uint64_t old = slot.load(std::memory_order_relaxed);
  uint64_t sum = 0;
  do {
    const uint64_t held = old >> kBusyBits;
    if (IsLater(held, number)) return;  // The window has moved on.
    const uint64_t before = held == number ? (old & kBusyMask) : 0;
    sum = number << kBusyBits | std::min(before + nanoseconds, kBusyMask);
  } while (!slot.compare_exchange_weak(old, sum, std::memory_order_relaxed));
}

absl::Duration BusyWindow::Sum(absl::Time now) const {
  const int64_t first = absl::ToUnixNanos(Begin(now)) / kSecond;
  const int64_t last = absl::ToUnixNanos(now) / kSecond;
  uint64_t sum = 0;
  for (int64_t second = first; second <= last; ++second) {
    const auto number = static_cast<uint64_t>(second);
    const uint64_t slot = slots_[number % kSlots].load(std::memory_order_relaxed);
    if (slot >> kBusyBits == (number & kNumberMask)) sum += slot & kBusyMask;
  }
  return absl::Nanoseconds(static_cast<int64_t>(sum));
}

}  // namespace millrace
