// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/request_limits.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace millrace {

void RequestLimits::Begin(PendingRequest& request, absl::Time now) const {
  const QueuePolicy& policy = PolicyOf(request);
  const bool timeout_delays =
      policy.allow_timeout_override && policy.timeout_action == QueuePolicy::TimeoutAction::kDelay;
  if (request.timeout && !timeout_delays) {
    request.deadline = std::min(request.deadline, request.arrival + *request.timeout);
  }
  Update(request, now);
}

void RequestLimits::Update(PendingRequest& request, absl::Time now) const {
  request.latest_start = LatestStart(request, now);
  request.expiry = request.latest_start;
  if (request.started) return;
  request.expiry = std::min({request.expiry, QueueTimeout(request), ShedTime(request),
                             request.arrival + request.flow().max_age()});
}

absl::Time RequestLimits::LatestStart(const PendingRequest& request, absl::Time now) const {
  if (request.deadline == absl::InfiniteFuture()) return request.deadline;
  const RowShape& shape = *request.row_shape();
  if (!costs_.IsFresh(shape, now)) return request.deadline;
  return request.deadline - costs_.Predict(shape, std::min(request.rows(), most_rows_));
}

absl::Time RequestLimits::QueueTimeout(const PendingRequest& request) const {
  if (request.delayed) return absl::InfiniteFuture();
  const QueuePolicy& policy = PolicyOf(request);
  absl::Duration timeout = policy.default_timeout;
  if (policy.allow_timeout_override && request.timeout) {
    timeout = std::min(timeout, *request.timeout);
  }
  return request.arrival + timeout;
}

bool RequestLimits::IsToBeDelayed(const PendingRequest& request, absl::Time now) const {
  return !request.started &&
         PolicyOf(request).timeout_action == QueuePolicy::TimeoutAction::kDelay &&
         QueueTimeout(request) <= now;
}

absl::Time RequestLimits::ShedTime(const PendingRequest& request) const {
  return request.overflow == Overflow::kReject ? request.arrival + overload_.MostWait()
                                               : absl::InfiniteFuture();
}

std::optional<Refusal> RequestLimits::WhyExpired(const PendingRequest& request,
                                                 absl::Time now) const {
  if (LatestStart(request, now) <= now) return TooLate(request, now);
  if (request.started) return std::nullopt;
  const absl::Duration age = now - request.arrival;
  const std::string waited = absl::FormatDuration(age);
  if (age >= request.flow().max_age()) {
    return Refusal{absl::AbortedError(absl::StrCat(
                       "The request was dropped: it waited ", waited, ", and millrace-max-age is ",
                       absl::FormatDuration(request.flow().max_age()), ".")),
                   Rejection::kTooOld};
  }
  if (QueueTimeout(request) <= now && !IsToBeDelayed(request, now)) {
    return Refusal{
        absl::DeadlineExceededError(absl::StrCat("Request timeout expired: it waited ", waited,
                                                 " in the queue of model '", model_, "'")),
        Rejection::kDeadline};
  }
  if (ShedTime(request) <= now) {
    return Refusal{absl::ResourceExhaustedError(absl::StrCat(
                       "Exceeds maximum queue size: model '", model_,
                       "' is overloaded, and the request waited ", waited, "; retry later")),
                   Rejection::kShed};
  }
  return std::nullopt;
}

Refusal RequestLimits::TooLate(const PendingRequest& request, absl::Time now) const {
  const absl::Duration left = request.deadline - now;
  return {absl::DeadlineExceededError(
              left <= absl::ZeroDuration()
                  ? std::string("Request timeout expired")
                  : absl::StrCat("Request timeout expired: ", absl::FormatDuration(left),
                                 " are left, which is too short for model '", model_,
                                 "' and those before it")),
          Rejection::kDeadline};
}

}  // namespace millrace
