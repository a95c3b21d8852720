// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/recent_sum.h"

#include <algorithm>

namespace millrace {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int kSumBits = 40;
constexpr uint64_t kSumMask = (uint64_t{1} << kSumBits) - 1;
constexpr uint64_t kNumberMask = (uint64_t{1} << (64 - kSumBits)) - 1;

// Whether second `number` comes after `other`; both are known modulo 2^24 only.
bool IsLater(uint64_t number, uint64_t other) {
  const uint64_t ahead = (number - other) & kNumberMask;
  return ahead != 0 && ahead <= kNumberMask / 2;
}

}  // namespace

absl::Time RecentSum::Begin(absl::Time now) {
  const int64_t second = absl::ToUnixNanos(now) / kSecond;
  return absl::FromUnixNanos(std::max<int64_t>(0, second - kSeconds + 1) * kSecond);
}

void RecentSum::Add(absl::Time when, uint64_t amount) {
  const auto second = static_cast<uint64_t>(absl::ToUnixNanos(when) / kSecond);
  std::atomic<uint64_t>& slot = slots_[second % kSlots];
  const uint64_t number = second & kNumberMask;
  uint64_t old = slot.load(std::memory_order_relaxed);
  uint64_t sum = 0;
  do {
    const uint64_t held = old >> kSumBits;
    if (IsLater(held, number)) return;  // The window has moved on.
    const uint64_t before = held == number ? (old & kSumMask) : 0;
    sum = number << kSumBits | std::min(before + amount, kSumMask);
  } while (!slot.compare_exchange_weak(old, sum, std::memory_order_relaxed));
}

uint64_t RecentSum::Sum(absl::Time now) const {
  const int64_t first = absl::ToUnixNanos(Begin(now)) / kSecond;
  const int64_t last = absl::ToUnixNanos(now) / kSecond;
  uint64_t sum = 0;
  for (int64_t second = first; second <= last; ++second) {
    const auto number = static_cast<uint64_t>(second);
    const uint64_t slot = slots_[number % kSlots].load(std::memory_order_relaxed);
    if (slot >> kSumBits == (number & kNumberMask)) sum += slot & kSumMask;
  }
  return sum;
}

}  // namespace millrace
