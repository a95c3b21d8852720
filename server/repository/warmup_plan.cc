// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/warmup_plan.h"

#include <algorithm>

namespace millrace {
namespace {

// TorchScript re-optimises in the first two runs of a shape.
constexpr int kRuns = 2;

std::vector<int64_t> BatchSizes(int64_t max_batch_size) {
  constexpr int64_t kEverySizeUpTo = 8;
  if (max_batch_size == 0) return {1};
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size < max_batch_size; size += size < kEverySizeUpTo ? 1 : size) {
    sizes.push_back(size);
  }
  sizes.push_back(max_batch_size);
  return sizes;
}

WarmupSample FromDeclared(const ModelSettings& settings, const DeclaredWarmup& declared) {
  WarmupSample sample = {.rows = declared.rows,
                         .count = declared.count.value_or(kRuns),
                         .inputs = {},
                         .declared = true};
  for (size_t i = 0; i < declared.inputs.size(); ++i) {
    sample.inputs.push_back({.name = settings.inputs[i].name,
                             .dims = declared.inputs[i].dims,
                             .random = declared.inputs[i].random,
                             .file = declared.inputs[i].file});
  }
  return sample;
}

// The shape to warm the sizes that nobody declared with; no inputs where it isn't known.
WarmupSample Invented(const ModelSettings& settings) {
  WarmupSample sample = {.rows = 1, .count = kRuns, .inputs = {}, .declared = false};
  if (!settings.warmup.empty()) {
    sample.inputs = FromDeclared(settings, settings.warmup.front()).inputs;
    return sample;
  }
  for (const TensorSpec& input : settings.inputs) {
    if (!ElementCount(input.dims)) return {};
    sample.inputs.push_back({.name = input.name, .dims = input.dims});
  }
  return sample;
}

}  // namespace

std::vector<WarmupSample> PlanWarmup(const ModelSettings& settings) {
  std::vector<WarmupSample> samples;
  for (const DeclaredWarmup& declared : settings.warmup) {
    samples.push_back(FromDeclared(settings, declared));
  }
  WarmupSample invented = Invented(settings);
  if (invented.inputs.empty()) return samples;
  for (const int64_t size : BatchSizes(settings.max_batch_size)) {
    const bool known = std::any_of(samples.begin(), samples.end(), [size](const WarmupSample& s) {
      return s.declared && s.rows == size;
    });
    if (known) continue;
    invented.rows = size;
    samples.push_back(invented);
  }
  return samples;
}

std::vector<int64_t> FurtherBatchSizes(const ModelSettings& settings,
                                       const std::vector<WarmupSample>& samples) {
  constexpr int64_t kMost = 1024;  // There would be no time for more.
  std::vector<int64_t> sizes;
  if (samples.empty()) return sizes;
  for (int64_t size = 1; size <= std::min(settings.max_batch_size, kMost); ++size) {
    const bool planned = std::any_of(samples.begin(), samples.end(),
                                     [size](const WarmupSample& s) { return s.rows == size; });
    if (!planned) sizes.push_back(size);
  }
  return sizes;
}

}  // namespace millrace
