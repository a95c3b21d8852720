// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <iostream>

#include "absl/synchronization/mutex.h"
#include "client/cli/command_line.h"

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return millrace::RunCommandLine({argv + 1, argv + argc}, std::cout, std::cerr,
                                  isatty(STDERR_FILENO) != 0);
}
