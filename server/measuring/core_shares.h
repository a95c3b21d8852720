// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "absl/types/span.h"

namespace millrace {

// Shares `cores` among models that are all to be busy at once: so that the one that gets least of
// what it does with all cores gets as much as can be. `curves` has for each model its rows per
// second by cores: [0] with one core, and so on up to `cores`, never falling. Each gets one core at
// least, also where there are more models than cores, and take turns. One number for each model.
std::vector<int> ShareCores(absl::Span<const std::vector<double>> curves, int cores);

}  // namespace millrace
