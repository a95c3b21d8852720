// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/dispatch/cost_table.h"
#include "server/dispatch/overload_controller.h"
#include "server/dispatch/pending_request.h"
#include "server/dispatch/queue_policy.h"
#include "server/metrics/model_metrics.h"

namespace millrace {

// What a request is told that isn't run.
struct Refusal {
  absl::Status status;
  std::optional<Rejection> reason = {};                   // Nullopt where it isn't counted as one.
  absl::Duration retry_after = absl::InfiniteDuration();  // Finite where trying again helps.
};

// How long a request may wait: until it would miss its deadline, until its level's queue timeout,
// until its stream's max-age, and, while the model is overloaded, until it is shed. Pure functions
// of the request, the time, and what batches cost. Thread-compatible.
class RequestLimits {
 public:
  // What it is given outlives it.
  RequestLimits(std::string model, int64_t most_rows, const std::vector<QueuePolicy>& levels,
                const CostTable& costs, const OverloadController& overload)
      : model_(std::move(model)),
        most_rows_(most_rows),
        levels_(levels),
        costs_(costs),
        overload_(overload) {}

  // Shortens the deadline of a request that has arrived by its timeout, and sees when it expires.
  void Begin(PendingRequest& request, absl::Time now) const;
  // Sees when it expires now: what batches cost and how far it has come may have changed.
  void Update(PendingRequest& request, absl::Time now) const;

  // Whether its queue timeout has passed and lets it run all the same, after the others.
  bool IsToBeDelayed(const PendingRequest& request, absl::Time now) const;
  // Until when it may wait while the model is overloaded.
  absl::Time ShedTime(const PendingRequest& request) const;
  // Whether one of its limits may have passed: cheaper than to ask which.
  bool MayHaveExpired(const PendingRequest& request, absl::Time now) const {
    return request.expiry <= now || ShedTime(request) <= now;
  }
  // What it is told where a limit has passed; nullopt where it may wait on.
  std::optional<Refusal> WhyExpired(const PendingRequest& request, absl::Time now) const;
  // What it is told where it can't make its deadline.
  Refusal TooLate(const PendingRequest& request, absl::Time now) const;

 private:
  const QueuePolicy& PolicyOf(const PendingRequest& request) const {
    return levels_[static_cast<size_t>(request.level) - 1];
  }
  absl::Time LatestStart(const PendingRequest& request, absl::Time now) const;
  absl::Time QueueTimeout(const PendingRequest& request) const;

  const std::string model_;
  const int64_t most_rows_;
  const std::vector<QueuePolicy>& levels_;
  const CostTable& costs_;
  const OverloadController& overload_;
};

}  // namespace millrace
