// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace millrace {

// How long a batch takes: something for the batch and something for each of its rows.
struct BatchTime {
  absl::Duration setup = absl::Milliseconds(5);
  absl::Duration per_row = absl::Microseconds(100);

  absl::Duration Of(int64_t rows) const { return setup + rows * per_row; }

  // The rows per second of one replica that runs batches of `rows` rows without a pause.
  double Capacity(int64_t rows) const {
    return static_cast<double>(rows) / absl::ToDoubleSeconds(Of(rows));
  }
};

}  // namespace millrace
