// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace millrace {

// Where the config's tensors stand among the model's.
struct NameMap {
  std::vector<size_t> positions;  // By the config's order; no two are equal.
  bool by_order = false;          // No name said anything: the config's order was taken.
};

// Finds for each of the config's `names` its place among the model's (`model_names`; "" where the
// model has no name). "<prefix><n>" (INPUT__0, OUTPUT__0) is the place n, another name the place
// of the model's equal name. Where no name is either, the config's order is the model's.
// INVALID_ARGUMENT where only some names fit, one is beyond the model's or two are the same place.
absl::StatusOr<NameMap> MapNames(const std::string& prefix, const std::vector<std::string>& names,
                                 const std::vector<std::string>& model_names);

}  // namespace millrace
