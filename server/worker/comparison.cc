// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/comparison.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/worker/tensors.h"

namespace millrace {
namespace {

using Verdict = Comparison::Verdict;

Comparison Compare(const at::Tensor& a, const at::Tensor& b, double rounding) {
  if (a.sizes() != b.sizes()) return {Verdict::kUnclear, "the shapes differ"};
  if (!c10::isFloatingType(a.scalar_type())) {
    if (at::equal(a, b)) return {};
    return {Verdict::kUnclear, "integers differ"};
  }
  if (a.numel() == 0) return {};
  const at::Tensor x = a.to(c10::ScalarType::Double);
  const at::Tensor y = b.to(c10::ScalarType::Double);
  const at::Tensor equal = x.eq(y).logical_or(x.isnan().logical_and(y.isnan()));
  const at::Tensor apart = at::where(equal, at::zeros_like(x), (x - y).abs());
  const at::Tensor sizes = at::maximum(x.abs(), y.abs());
  const double largest =
      at::where(sizes.isfinite(), sizes, at::zeros_like(sizes)).max().item<double>();
  const double most = apart.max().item<double>();
  const double tolerance = (rounding < 0 ? RoundingOf(a.scalar_type()) : rounding) * largest;
  if (most <= tolerance) return {};
  return {Verdict::kDifferent,
          absl::StrCat("values that lie ", most, " apart, where the largest is ", largest, " and ",
                       tolerance, " would be rounding")};
}

}  // namespace

double RoundingOf(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Double:
      return 1e-7;
    case c10::ScalarType::Float:
      return 2e-3;
    case c10::ScalarType::Half:
      return 3e-2;
    default:  // BFloat16.
      return 1e-1;
  }
}

Comparison CompareOutputs(const LoadCommand& command, const std::vector<at::Tensor>& a,
                          const std::vector<at::Tensor>& b, double rounding) {
  Comparison unclear;
  for (size_t i = 0; i < a.size(); ++i) {
    Comparison one = Compare(a[i], b[i], rounding);
    if (one.verdict == Verdict::kSame) continue;
    one.where = absl::StrCat("output '", command.outputs[i].name, "': ", one.where);
    if (one.verdict == Verdict::kDifferent) return one;
    unclear = std::move(one);
  }
  return unclear;
}

}  // namespace millrace
