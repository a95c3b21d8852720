// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/open_loop.h"

#include <gtest/gtest.h>

#include <cmath>

namespace millrace {
namespace {

// Batches that take setup + per_row · rows.
Service ServiceOf(double setup_ms, double row_ms, int replicas, int64_t most_rows) {
  Service service = {.cost = {}, .replicas = replicas, .most_rows = most_rows};
  for (int i = 0; i < 40; ++i) {
    for (const int64_t rows : {int64_t{1}, most_rows}) {
      service.cost.Observe(rows, absl::Milliseconds(setup_ms + row_ms * static_cast<double>(rows)));
    }
  }
  return service;
}

TEST(OpenLoop, RequestThatComesAloneTakesItsBatchOnly) {
  const Service service = ServiceOf(8, 2, 1, 8);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(PredictP99(service, 0.1)), 10, 0.5);
}

TEST(OpenLoop, WaitsAsTheTheorySays) {
  // M/D/1: the mean wait is ρ/2(1-ρ) service times; p99 at ρ = 0.5 is about 4.1 of them in all
  // (tables of the M/D/1 queue).
  const Service service = ServiceOf(0, 10, 1, 1);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(PredictP99(service, 50)), 41, 5);
}

TEST(OpenLoop, MoreThanCanBeRunNeverComesToAnEnd) {
  EXPECT_EQ(PredictP99(ServiceOf(0, 10, 2, 1), 201), absl::InfiniteDuration());
}

TEST(OpenLoop, MostRequestsLeaveP99WithinTheLimit) {
  const Service service = ServiceOf(8, 2, 2, 8);
  const double most = MostRequestsPerSecond(service, absl::Milliseconds(40));
  EXPECT_LE(PredictP99(service, most), absl::Milliseconds(40));
  EXPECT_GT(PredictP99(service, 1.05 * most), absl::Milliseconds(40));
  EXPECT_GT(MostRequestsPerSecond(service, absl::Milliseconds(80)), most);
}

TEST(OpenLoop, LimitThatEvenOneRequestMisses) {
  EXPECT_EQ(MostRequestsPerSecond(ServiceOf(8, 2, 2, 8), absl::Milliseconds(9)), 0);
}

TEST(OpenLoop, SmallBatchesWinUnderATightLimit) {
  // A full batch of 32 takes 33 ms, so with a limit of 12 ms large ones are never gathered; the
  // replicas then matter alone.
  const double large = MostRequestsPerSecond(ServiceOf(1, 1, 1, 32), absl::Milliseconds(12));
  const double two = MostRequestsPerSecond(ServiceOf(1.6, 1, 2, 4), absl::Milliseconds(12));
  EXPECT_GT(two, large);
}

}  // namespace
}  // namespace millrace
