// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "server/metrics/metric_names.h"

namespace millrace {

// A histogram's state at a scrape, in the unit of its metric.
struct HistogramValue {
  std::vector<double> bounds;    // Upper bounds, ascending, without +Inf.
  std::vector<uint64_t> counts;  // Observations per bucket, not cumulative; the last is +Inf.
  double sum = 0;
};

// One series at a scrape.
struct Sample {
  const Metric* metric;             // Lives for ever: a constant of metric_names.h.
  std::vector<std::string> labels;  // The values of metric->labels, in order.
  std::variant<double, HistogramValue> value;
};

}  // namespace millrace
