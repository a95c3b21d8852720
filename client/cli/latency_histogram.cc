// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/latency_histogram.h"

#include <algorithm>
#include <cmath>

namespace millrace {
inline namespace client {
namespace {

constexpr absl::Duration kLeast = absl::Microseconds(10);
constexpr double kStep = 1.02;

}  // namespace

void LatencyHistogram::Add(absl::Duration latency) {
  const double steps =
      std::log(absl::FDivDuration(std::max(latency, kLeast), kLeast)) / std::log(kStep);
  ++steps_[std::min(static_cast<size_t>(steps), steps_.size() - 1)];
  ++count_;
}

void LatencyHistogram::Add(const LatencyHistogram& others) {
  for (size_t i = 0; i < steps_.size(); ++i) steps_[i] += others.steps_[i];
  count_ += others.count_;
}

absl::Duration LatencyHistogram::Percentile(double fraction) const {
  if (count_ == 0) return absl::ZeroDuration();
  int64_t left =
      std::max<int64_t>(std::llround(std::ceil(fraction * static_cast<double>(count_))), 1);
  size_t step = 0;
  while ((left -= steps_[step]) > 0) ++step;
  return kLeast * std::pow(kStep, static_cast<double>(step) + 0.5);
}

}  // namespace client
}  // namespace millrace
