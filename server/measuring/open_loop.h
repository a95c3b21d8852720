// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "server/dispatch/cost_model.h"

namespace millrace {

// Replicas that run batches of one model.
struct Service {
  CostModel cost;  // Of a batch, while all replicas are busy.
  int replicas = 1;
  int64_t most_rows = 1;  // Of a batch.
};

// How long 99 of 100 requests of one row take at most that come at random times, `rate` a second,
// where a free replica takes what waits, up to a full batch. Found by playing it through in virtual
// time with always the same random numbers, so that two services compare. Infinite where requests
// come faster than they can be run.
absl::Duration PredictP99(const Service& service, double rate);

// At most how many requests a second leave p99 within `limit`; 0 where even a request that comes
// alone takes longer.
double MostRequestsPerSecond(const Service& service, absl::Duration limit);

}  // namespace millrace
