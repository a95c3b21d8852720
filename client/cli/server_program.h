// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace millrace {
inline namespace client {

// The path of the millrace-server beside this program. UNAVAILABLE where there is none that may be
// run.
absl::StatusOr<std::string> FindServerProgram();

}  // namespace client
}  // namespace millrace
