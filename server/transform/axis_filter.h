// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "server/transform/image_transform.h"

namespace millrace {

// What the pixels of one axis are made of: pixel i is the sum of weights[i * taps + k] times sample
// first[i] + k, over the taps k. All samples exist, and the weights of a pixel add up to 1.
struct AxisFilter {
  int taps = 1;
  std::vector<int> first;
  std::vector<float> weights;
};

// Where `samples` samples, whose first `length` (the last may count in part) become `resized`
// pixels, makes the filter of the pixels from `begin` to `begin` + `count`. As Pillow computes it.
// REQUIRES: samples - 1 < length <= samples; the pixels lie in 0 to `resized`.
AxisFilter MakeAxisFilter(Interpolation interpolation, int samples, double length, int64_t resized,
                          int64_t begin, int count);

}  // namespace millrace
