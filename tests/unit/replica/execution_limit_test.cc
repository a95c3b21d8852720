// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/execution_limit.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

RowShape Shape(int64_t width) { return {.dims = {{width}}, .row_bytes = {4}}; }

constexpr absl::Duration kFirst = absl::Minutes(3);

void RunTwice(ExecutionLimit& limit, const RowShape& shape) {
  for (int i = 0; i < 2; ++i) limit.Ran(shape, absl::Seconds(60));
}

TEST(ExecutionLimit, FirstRunsOfAShapeAreExempt) {
  ExecutionLimit limit({.first_runs = kFirst});
  EXPECT_EQ(limit.For(Shape(1), 1), kFirst);
  limit.Ran(Shape(1), absl::Seconds(60));
  EXPECT_EQ(limit.For(Shape(1), 1), kFirst);
  limit.Ran(Shape(1), absl::Seconds(60));
  EXPECT_EQ(limit.For(Shape(1), 1), absl::Seconds(10));  // And don't count.
  EXPECT_EQ(limit.For(Shape(2), 1), kFirst);
}

TEST(ExecutionLimit, IsTwentyTimesTheLongestRun) {
  ExecutionLimit limit({.first_runs = kFirst});
  RunTwice(limit, Shape(1));
  limit.Ran(Shape(1), absl::Milliseconds(300));
  EXPECT_EQ(limit.For(Shape(1), 1), absl::Seconds(10));
  limit.Ran(Shape(1), absl::Seconds(2));
  limit.Ran(Shape(1), absl::Seconds(1));
  EXPECT_EQ(limit.For(Shape(1), 1), absl::Seconds(40));
}

TEST(ExecutionLimit, IsWhatIsConfigured) {
  ExecutionLimit limit({.configured = absl::Milliseconds(200), .first_runs = kFirst});
  EXPECT_EQ(limit.For(Shape(1), 1), kFirst);
  RunTwice(limit, Shape(1));
  limit.Ran(Shape(1), absl::Seconds(2));
  EXPECT_EQ(limit.For(Shape(1), 1), absl::Milliseconds(200));
  EXPECT_EQ(limit.For(Shape(1), 0.1), absl::Milliseconds(200));
}

TEST(ExecutionLimit, PartOfABatchIsGivenItsShareButNotTooLittle) {
  ExecutionLimit limit({.first_runs = kFirst});
  RunTwice(limit, Shape(1));
  EXPECT_EQ(limit.For(Shape(1), 0.5), absl::Seconds(5));
  EXPECT_EQ(limit.For(Shape(1), 0.01), absl::Seconds(1));
  limit.Ran(Shape(1), absl::Seconds(2));
  EXPECT_EQ(limit.For(Shape(1), 0.5), absl::Seconds(20));
  EXPECT_EQ(limit.For(Shape(1), 0.01), absl::Seconds(4));
}

}  // namespace
}  // namespace millrace
