// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/retry_policy.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/numbers.h"

namespace millrace {
inline namespace client {

std::optional<absl::Duration> RetryPolicy::NextDelay(const absl::Status& status, int attempt,
                                                     const std::optional<std::string>& pushback,
                                                     double jitter) const {
  if (!absl::IsUnavailable(status) && !absl::IsResourceExhausted(status)) return std::nullopt;
  if (attempt >= max_attempts) return std::nullopt;
  if (pushback.has_value()) {
    int32_t milliseconds = 0;
    if (!absl::SimpleAtoi(*pushback, &milliseconds) || milliseconds < 0) return std::nullopt;
    return absl::Milliseconds(milliseconds);
  }
  const absl::Duration backoff =
      std::min(initial_backoff * std::exp2(std::min(attempt - 1, 30)), max_backoff);
  return backoff * (1.0 - 0.2 * jitter);
}

}  // namespace client
}  // namespace millrace
