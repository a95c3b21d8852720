// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/axis_filter.h"

#include <algorithm>
#include <cmath>

#include "server/base/check.h"

namespace millrace {
namespace {

double Triangle(double x) { return std::max(0.0, 1 - std::abs(x)); }
double Box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

AxisFilter Nearest(int samples, double step, int64_t begin, int count) {
  AxisFilter filter;
  filter.first.reserve(static_cast<size_t>(count));
  filter.weights.assign(static_cast<size_t>(count), 1.0F);
  // Pillow adds up the steps, which decides where a middle lies between two samples. Further out
  // than rows reach that would take too long.
  double middle = step / 2;
  if (begin <= kMostSide) {
    for (int64_t i = 0; i < begin; ++i) middle += step;
  } else {
    middle += step * static_cast<double>(begin);
  }
  for (int i = 0; i < count; ++i) {
    filter.first.push_back(std::min(static_cast<int>(middle), samples - 1));
    middle += step;
  }
  return filter;
}

// The weights of one pixel: of the samples from `first` on.
struct Weights {
  int first = 0;
  std::vector<double> of;
};

// Weighs the samples within `support` of `center` by `shape`, whose unit is `unit` samples.
void Weigh(double (*shape)(double), double center, double support, double unit, int samples,
           Weights& weights) {
  int begin = std::max(0, static_cast<int>(std::floor(center - support + 0.5)));
  int end = std::min(samples, static_cast<int>(std::floor(center + support + 0.5)));
  begin = std::min(begin, samples - 1);
  end = std::max(end, begin + 1);
  const auto weight = [&](int sample) { return shape((sample - center + 0.5) * (1 / unit)); };
  while (end - begin > 1 && weight(begin) == 0) ++begin;
  while (end - begin > 1 && weight(end - 1) == 0) --end;
  weights.first = begin;
  weights.of.clear();
  double sum = 0;
  for (int sample = begin; sample < end; ++sample) {
    weights.of.push_back(weight(sample));
    sum += weights.of.back();
  }
  // Rounding may leave a box empty; then it is the sample that it lies in.
  if (sum == 0) weights.of.assign(1, sum = 1);
  for (double& w : weights.of) w /= sum;
}

}  // namespace

AxisFilter MakeAxisFilter(Interpolation interpolation, int samples, double length, int64_t resized,
                          int64_t begin, int count) {
  MILLRACE_CHECK(samples > 0 && length > samples - 1 && length <= samples && begin >= 0 &&
                     begin + count <= resized,
                 "A filter reads what there is.");
  const double step = length / static_cast<double>(resized);
  if (interpolation == Interpolation::kNearest) return Nearest(samples, step, begin, count);
  const bool bilinear = interpolation == Interpolation::kBilinear;
  const double unit = std::max(1.0, step);
  const double support = bilinear ? unit : unit / 2;

  const int most_taps = std::min(samples, 2 * static_cast<int>(std::ceil(support)) + 1);
  AxisFilter filter;
  filter.first.resize(static_cast<size_t>(count));
  filter.weights.assign(static_cast<size_t>(count) * static_cast<size_t>(most_taps), 0.0F);
  std::vector<size_t> sizes(static_cast<size_t>(count));
  Weights weights;
  size_t taps = 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const double center = (static_cast<double>(begin) + static_cast<double>(i) + 0.5) * step;
    Weigh(bilinear ? Triangle : Box, center, support, unit, samples, weights);
    filter.first[i] = weights.first;
    sizes[i] = weights.of.size();
    taps = std::max(taps, sizes[i]);
    std::copy(weights.of.begin(), weights.of.end(),
              filter.weights.begin() + static_cast<ptrdiff_t>(i * static_cast<size_t>(most_taps)));
  }
  // As many taps for each pixel; those that have less begin earlier where the samples end.
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int shift = std::max(0, filter.first[i] + static_cast<int>(taps) - samples);
    const auto from =
        filter.weights.begin() + static_cast<ptrdiff_t>(i * static_cast<size_t>(most_taps));
    const auto to = filter.weights.begin() + static_cast<ptrdiff_t>(i * taps);
    std::copy(from, from + static_cast<ptrdiff_t>(taps), to);
    std::rotate(to, to + static_cast<ptrdiff_t>(taps) - shift, to + static_cast<ptrdiff_t>(taps));
    filter.first[i] -= shift;
  }
  filter.taps = static_cast<int>(taps);
  filter.weights.resize(sizes.size() * taps);
  return filter;
}

}  // namespace millrace
