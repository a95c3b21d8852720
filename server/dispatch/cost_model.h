// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace millrace {

// How long a batch runs: setup + per_row · rows, fitted while the server serves, by exponentially
// weighted least squares over the batches that ran. Thread-compatible.
//
// Invariants:
//  1. Neither coefficient is ever negative.
//  2. A change of the true cost is followed within 50 batches; a single outlier changes nothing.
//  3. Where all batches have one size, the ratio of the coefficients stays what it was.
class CostModel {
 public:
  // Takes a batch of `rows` ≥ 1 rows that ran for `took`.
  void Observe(int64_t rows, absl::Duration took);

  // Whether anything has been observed; until then every prediction is zero.
  bool known() const { return samples_ > 0; }

  absl::Duration setup() const { return absl::Nanoseconds(setup_); }
  absl::Duration per_row() const { return absl::Nanoseconds(per_row_); }
  // The standard deviation of a batch's time around its prediction.
  absl::Duration deviation() const;

  // How long a batch of `rows` rows will run.
  absl::Duration Predict(int64_t rows) const { return absl::Nanoseconds(PredictNs(rows)); }
  // The same in nanoseconds.
  double PredictNs(int64_t rows) const { return setup_ + per_row_ * static_cast<double>(rows); }

  // Rows per second of one replica that always runs batches of `rows` rows; 0 while unknown.
  double Capacity(int64_t rows) const;

 private:
  void Fit();

  // Of the observations, each weighted by how recent it is: the sums of the weights, rows, squares
  // of rows, times, and products of both.
  double weight_ = 0, x_ = 0, xx_ = 0, y_ = 0, xy_ = 0;
  double setup_ = 0, per_row_ = 0;  // Nanoseconds.
  double variance_ = 0;
  int64_t samples_ = 0;
  int strays_ = 0;  // The last observations that were far off, in a row.
};

}  // namespace millrace
