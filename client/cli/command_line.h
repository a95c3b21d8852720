// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace millrace {
inline namespace client {

// Runs the `millrace` command line with `arguments` (without the program's name): prints results
// to `out`, errors and progress to `err`, and returns the exit code (see ExitCode).
int RunCommandLine(std::vector<std::string> arguments, std::ostream& out, std::ostream& err,
                   bool err_is_terminal);

}  // namespace client
}  // namespace millrace
