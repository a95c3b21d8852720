// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {
inline namespace client {

// The Python for programs of ours that take torch: `wanted` (what MILLRACE_PYTHON says; "":
// nothing), else the .venv beside the build whose programs are in `bin`, else python3 of `path` (as
// PATH). FAILED_PRECONDITION where there is none.
absl::StatusOr<std::string> FindPython(const std::string& wanted, const std::string& bin,
                                       const std::string& path);

// Puts a Python package that comes with this program, run as `python -m package arguments`, into
// the place of this process: it returns only where that can't be done. Call it before gRPC or a
// thread of ours has started.
absl::Status BecomePythonTool(const std::string& package,
                              const std::vector<std::string>& arguments);

}  // namespace client
}  // namespace millrace
