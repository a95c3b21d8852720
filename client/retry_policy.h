// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace millrace {
inline namespace client {

// When a unary call is tried again: after UNAVAILABLE (nobody there, or shutting down) and
// RESOURCE_EXHAUSTED (the model's queue is full). A plain value; pure functions.
struct RetryPolicy {
  // All attempts, the first one included; 1 means never retry.
  int max_attempts = 5;
  // The wait before the second attempt; it doubles up to `max_backoff`. Up to a fifth of each wait
  // is random, so that clients which failed together don't come back together.
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);

  // How long to wait before the next attempt, or nothing when `status`, the result of the
  // `attempt`-th attempt (from 1), is final.
  //
  // `pushback` is the trailer `grpc-retry-pushback-ms`, if one came: the server's own word about
  // when to come back is taken as it is; a negative or unreadable one means never
  // (gRPC proposal A6). `jitter` is a random number in [0, 1).
  std::optional<absl::Duration> NextDelay(const absl::Status& status, int attempt,
                                          const std::optional<std::string>& pushback,
                                          double jitter) const;
};

}  // namespace client
}  // namespace millrace
