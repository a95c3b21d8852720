// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "server/inference/warmup.h"
#include "server/repository/model_settings.h"

namespace millrace {

// What to run before a model's replicas serve, so that no request meets a shape for the first
// time: the declared samples, and every batch size that can occur (from 8 rows on the powers of
// two and the largest), with zeros in the declared shapes or the config's. Empty where the config
// leaves dims open and declares no sample: then shapes are warmed by their first requests.
std::vector<WarmupSample> PlanWarmup(const ModelSettings& settings);

}  // namespace millrace
