// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace millrace {

// What a request or an answer says besides its tensors, by name.
struct Parameter {
  std::string name;
  std::variant<bool, int64_t, double, std::string> value;
};
using Parameters = std::vector<Parameter>;

}  // namespace millrace
