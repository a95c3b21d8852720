// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/retry_policy.h"

#include "gtest/gtest.h"

namespace millrace {
namespace {

const absl::Status kUnavailable = absl::UnavailableError("");

TEST(RetryPolicy, RetriesOnlyWhatMayPass) {
  const RetryPolicy policy;
  EXPECT_TRUE(policy.NextDelay(kUnavailable, 1, {}, 0).has_value());
  EXPECT_TRUE(policy.NextDelay(absl::ResourceExhaustedError(""), 1, {}, 0).has_value());
  for (const absl::Status& status :
       {absl::OkStatus(), absl::InternalError(""), absl::InvalidArgumentError(""),
        absl::DeadlineExceededError(""), absl::NotFoundError("")}) {
    EXPECT_FALSE(policy.NextDelay(status, 1, {}, 0).has_value()) << status;
  }
}

TEST(RetryPolicy, StopsAfterMaxAttempts) {
  const RetryPolicy policy{.max_attempts = 3};
  EXPECT_TRUE(policy.NextDelay(kUnavailable, 2, {}, 0).has_value());
  EXPECT_FALSE(policy.NextDelay(kUnavailable, 3, {}, 0).has_value());
  EXPECT_FALSE(policy.NextDelay(kUnavailable, 3, "0", 0).has_value());
}

TEST(RetryPolicy, BackoffDoublesUpToItsMaximum) {
  const RetryPolicy policy{.max_attempts = 100,
                           .initial_backoff = absl::Milliseconds(100),
                           .max_backoff = absl::Milliseconds(350)};
  EXPECT_EQ(policy.NextDelay(kUnavailable, 1, {}, 0), absl::Milliseconds(100));
  EXPECT_EQ(policy.NextDelay(kUnavailable, 2, {}, 0), absl::Milliseconds(200));
  EXPECT_EQ(policy.NextDelay(kUnavailable, 3, {}, 0), absl::Milliseconds(350));
  EXPECT_EQ(policy.NextDelay(kUnavailable, 99, {}, 0), absl::Milliseconds(350));
  EXPECT_EQ(policy.NextDelay(kUnavailable, 1, {}, 0.5), absl::Milliseconds(90));
}

TEST(RetryPolicy, PushbackReplacesTheBackoff) {
  const RetryPolicy policy;
  EXPECT_EQ(policy.NextDelay(kUnavailable, 1, "1234", 0.9), absl::Milliseconds(1234));
  EXPECT_EQ(policy.NextDelay(kUnavailable, 1, "0", 0.9), absl::ZeroDuration());
  EXPECT_EQ(policy.NextDelay(kUnavailable, 1, "-1", 0), std::nullopt);
  EXPECT_EQ(policy.NextDelay(kUnavailable, 1, "soon", 0), std::nullopt);
  EXPECT_EQ(policy.NextDelay(kUnavailable, 1, "99999999999", 0), std::nullopt);
}

}  // namespace
}  // namespace millrace
