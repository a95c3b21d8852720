// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/busy_window.h"

#include <algorithm>
#include <cstdint>

namespace millrace {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

}  // namespace

void BusyWindow::Add(absl::Time end, absl::Duration busy) {
  const int64_t until = absl::ToUnixNanos(end);
  int64_t from = absl::ToUnixNanos(std::max(end - busy, Begin(end)));
  while (from < until) {
    const int64_t piece_end = std::min(until, (from / kSecond + 1) * kSecond);
    nanoseconds_.Add(absl::FromUnixNanos(from), static_cast<uint64_t>(piece_end - from));
    from = piece_end;
  }
}

absl::Duration BusyWindow::Sum(absl::Time now) const {
  return absl::Nanoseconds(static_cast<int64_t>(nanoseconds_.Sum(now)));
}

}  // namespace millrace
