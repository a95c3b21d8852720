// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace millrace {
inline namespace client {

// gRPC metadata: pairs of a lower-case key and a value, sent as the call's headers.
using Metadata = std::vector<std::pair<std::string, std::string>>;

}  // namespace client
}  // namespace millrace
