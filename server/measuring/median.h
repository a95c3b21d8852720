// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace millrace {

// The value in the middle, or between the two in the middle. REQUIRES: there are values.
template <typename T>
T Median(std::vector<T> values) {
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle),
                   values.end());
  const T upper = values[middle];
  if (values.size() % 2 == 1) return upper;
  const T lower =
      *std::max_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle));
  return lower + (upper - lower) / 2;
}

// The value below which 99 of 100 lie, by the nearest rank. REQUIRES: there are values.
template <typename T>
T Percentile99(std::vector<T> values) {
  const size_t rank = (values.size() * 99 + 99) / 100 - 1;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(rank),
                   values.end());
  return values[rank];
}

}  // namespace millrace
