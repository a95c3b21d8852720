// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {
inline namespace client {

// The path of the millrace-server beside this program. UNAVAILABLE where there is none that may be
// run.
absl::StatusOr<std::string> FindServerProgram();

// Becomes that program with `arguments`, under the name of this one. Returns only where it can't:
// UNAVAILABLE.
absl::Status BecomeServerProgram(const std::vector<std::string>& arguments);

}  // namespace client
}  // namespace millrace
