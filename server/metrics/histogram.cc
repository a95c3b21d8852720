// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/histogram.h"

#include <algorithm>
#include <cmath>

namespace millrace {

void Histogram::Observe(int64_t value) {
  value = std::max<int64_t>(value, 0);
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  counts_[static_cast<size_t>(bound - bounds_.begin())].Add();
  sum_.Add(static_cast<uint64_t>(value));
}

void Histogram::AddTo(HistogramValue& total, double unit) const {
  if (total.counts.empty()) {
    total.counts.resize(bounds_.size() + 1);
    // Dividing by a whole number gives 0.0005 where multiplying gives 0.0005000000000000001.
    const double per_unit = std::round(1 / unit);
    for (const int64_t bound : bounds_) {
      total.bounds.push_back(static_cast<double>(bound) / per_unit);
    }
  }
  for (size_t i = 0; i < total.counts.size(); ++i) total.counts[i] += counts_[i].value();
  total.sum += static_cast<double>(sum_.value()) * unit;
}

}  // namespace millrace
