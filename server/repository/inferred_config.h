// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/inference/inspection.h"

namespace millrace {

// The text of a config.pbtxt for a model that was inspected, with what is to be known of it as
// comments. Tensors have the model's own names where a config can hold them, else INPUT__0,
// OUTPUT__0 and so on. A model whose rows get other results in a batch than alone gets one row.
std::string InferredConfig(const Inspection& inspection);

// What was found out, for people: a few lines.
std::string DescribeInspection(const Inspection& inspection);

// The same for programs: a JSON object, which holds `config`, too.
std::string InspectionJson(const Inspection& inspection, const std::string& config);

}  // namespace millrace
