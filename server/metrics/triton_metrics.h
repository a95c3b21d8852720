// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "server/metrics/model_metrics.h"
#include "server/metrics/sample.h"

namespace millrace {

// A model version's figures by the names, labels and units that Triton gives them, so that what was
// made for Triton reads them, too. A value differs where the servers do: a queue's time includes a
// picture's decoding.
std::vector<Sample> CollectTritonModel(const ModelMetrics& model);

// The same for the GPUs that are among `samples` by Millrace's names.
std::vector<Sample> CollectTritonGpus(const std::vector<Sample>& samples);

}  // namespace millrace
