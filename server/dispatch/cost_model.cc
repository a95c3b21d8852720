// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/cost_model.h"

#include <algorithm>
#include <cmath>

namespace millrace {
namespace {

// What an observation still counts when the next one comes: 50 batches later it is 1 %.
constexpr double kFade = 0.91;
// An observation so many standard deviations off is a stray, and one stray says nothing. Several
// in a row are a change.
constexpr double kFarOff = 4;
constexpr int kStraysThatAreAChange = 3;
// Before so many observations nothing is known about what is usual.
constexpr int64_t kEnough = 8;
// A deviation smaller than this share of the prediction is taken for this: clocks and caches alone
// make so much.
constexpr double kLeastDeviation = 0.02;
// How much rows have to differ for their slope to be believed: the variance of the rows at which
// it counts as much as the ratio that was known before.
constexpr double kSlopeVariance = 0.05;

}  // namespace

void CostModel::Observe(int64_t rows, absl::Duration took) {
  const double x = static_cast<double>(std::max<int64_t>(rows, 1));
  const double y = std::max(0.0, absl::ToDoubleNanoseconds(took));
  const double error = y - PredictNs(rows);
  const double usual = std::max(std::sqrt(variance_), kLeastDeviation * PredictNs(rows));
  if (samples_ >= kEnough && std::abs(error) > kFarOff * usual &&
      ++strays_ < kStraysThatAreAChange) {
    return;
  }
  if (samples_ < kEnough || std::abs(error) <= kFarOff * usual) strays_ = 0;
  ++samples_;
  weight_ = kFade * weight_ + 1;
  x_ = kFade * x_ + x;
  xx_ = kFade * xx_ + x * x;
  y_ = kFade * y_ + y;
  xy_ = kFade * xy_ + x * y;
  Fit();
  const double left = y - PredictNs(rows);
  variance_ = samples_ == 1 ? 0 : kFade * variance_ + (1 - kFade) * left * left;
}

void CostModel::Fit() {
  const double mean_x = x_ / weight_;
  const double mean_y = y_ / weight_;
  const double variance_x = std::max(0.0, xx_ / weight_ - mean_x * mean_x);
  const double covariance = xy_ / weight_ - mean_x * mean_y;
  // Where the rows hardly differ, the slope comes from what was known, scaled to the new level: a
  // machine that slows down slows everything. Nothing known, half of the time is the setup's.
  const double before = setup_ + per_row_ * mean_x;
  const double known = before > 0 ? per_row_ * mean_y / before : mean_y / (2 * mean_x);
  const double trust = kSlopeVariance * mean_x;
  per_row_ = std::max(0.0, (covariance + trust * known) / (variance_x + trust));
  setup_ = mean_y - per_row_ * mean_x;
  if (setup_ < 0) {  // The best line through the origin.
    setup_ = 0;
    per_row_ = xy_ / xx_;
  }
}

absl::Duration CostModel::deviation() const { return absl::Nanoseconds(std::sqrt(variance_)); }

double CostModel::Capacity(int64_t rows) const {
  const double took = PredictNs(rows);
  return took > 0 ? static_cast<double>(rows) * 1e9 / took : 0;
}

}  // namespace millrace
