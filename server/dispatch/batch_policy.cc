// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/batch_policy.h"

#include <algorithm>

namespace millrace {
namespace {

// Splitting costs a setup per further replica, so it is for times when there is capacity to spare,
// and for answers that come at least a fifth and a millisecond sooner.
constexpr double kSplitBelow = 0.6;
constexpr double kSplitGain = 0.8;
constexpr double kSplitLeastGainNs = 1e6;
// What a smaller batch may cost in rows per second while others wait. Smaller and smaller batches
// for the sake of deadlines are how an overloaded server collapses.
constexpr double kLeastEfficiency = 0.95;

}  // namespace

absl::Time BatchPolicy::GoAt(const State& state) const {
  if (state.closed) return absl::InfinitePast();
  absl::Time go_at = state.hold_until;
  if (max_queue_delay > absl::ZeroDuration() &&
      std::find(preferred_sizes.begin(), preferred_sizes.end(), state.rows) ==
          preferred_sizes.end()) {
    go_at = std::max(go_at, state.oldest_arrival + max_queue_delay);
  }
  return go_at;
}

int64_t BatchPolicy::RowsPerReplica(int64_t waiting, int64_t capacity, int idle, double utilisation,
                                    const CostModel& cost) {
  const int64_t whole = std::min(waiting, capacity);
  if (idle < 2 || whole < 2 || utilisation >= kSplitBelow || !cost.known()) return capacity;
  const int64_t share = (whole + idle - 1) / idle;
  const double together = cost.PredictNs(whole);
  const double apart = cost.PredictNs(share);
  const bool worth_it = apart <= kSplitGain * together && apart <= together - kSplitLeastGainNs;
  return worth_it ? share : capacity;
}

BatchPolicy::Cut BatchPolicy::CutFor(absl::Duration slack, int64_t rows, bool others_wait,
                                     const CostModel& cost) {
  const double slack_ns = absl::ToDoubleNanoseconds(slack);
  if (!cost.known() || cost.PredictNs(rows) <= slack_ns) return {.rows = rows};
  const double row_ns = absl::ToDoubleNanoseconds(cost.per_row());
  const double fit = (slack_ns - cost.PredictNs(0)) / row_ns;
  const auto fitting = static_cast<int64_t>(std::clamp(fit, 1.0, static_cast<double>(rows)));
  const bool worth_it =
      !others_wait || cost.Capacity(fitting) >= kLeastEfficiency * cost.Capacity(rows);
  return {.rows = worth_it ? fitting : rows, .drop_urgent = !worth_it};
}

}  // namespace millrace
