// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "server/inference/warmup.h"
#include "server/repository/model_settings.h"

namespace millrace {

// What to run before a model's replicas serve: the declared samples, and batch sizes that can occur
// (to 8 rows all, from then on the powers of two and the largest), with the first declared sample's
// inputs, or zeros in the config's shapes. Empty where the config leaves dims open and declares no
// sample: then shapes are warmed by their first requests. Reads no file; see ReadWarmupFiles().
std::vector<WarmupSample> PlanWarmup(const ModelSettings& settings);

// The other batch sizes that can occur, ascending, to be run while that takes little time, so that
// no request meets a size for the first time. `samples` is the plan; none where it is empty.
std::vector<int64_t> FurtherBatchSizes(const ModelSettings& settings,
                                       const std::vector<WarmupSample>& samples);

}  // namespace millrace
