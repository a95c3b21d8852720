// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "client/tensor.h"

namespace millrace {
inline namespace client {

// A request's or a response's parameters: the protocol's own ("priority", "timeout" in µs, …) or
// custom ones, which the server ignores.
using Parameter = std::variant<bool, int64_t, uint64_t, double, std::string>;
using Parameters = std::map<std::string, Parameter>;

// One inference: a plain value.
struct Request {
  std::string model = {};
  // A decimal number; empty means the newest version that is ready.
  std::string version = {};
  // Comes back in the response; free to choose, need not be unique.
  std::string id = {};
  Parameters parameters = {};
  std::vector<Tensor> inputs = {};
  // The outputs wanted, by name; none means all.
  std::vector<std::string> outputs = {};
  // In place of each of `outputs`, its so many best classes: BYTES elements "value:index:label".
  // Zero: the outputs themselves.
  int64_t classes = 0;
};

}  // namespace client
}  // namespace millrace
