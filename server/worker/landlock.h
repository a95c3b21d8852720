// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/unique_fd.h"

namespace millrace {

// The kernel's Landlock: takes from this process, and all that it forks, every file that isn't
// allowed here, whatever its user may open; and TCP, and, where the kernel knows how, signals to
// and abstract sockets of processes outside. Descriptors that are open stay so. Processes outside
// can't be traced nor their memory or descriptors be reached. Thread-compatible.
class Landlock {
 public:
  enum class Access {
    kRead,   // Read files, list folders.
    kWrite,  // kRead, and write what is there, devices too.
    kFill,   // kWrite, and make files and remove them.
  };

  // Begins with nothing allowed. UNIMPLEMENTED or another error where the kernel has no Landlock or
  // refuses it.
  static absl::StatusOr<Landlock> Create();

  // Allows a file, or a folder with all that is in it; what doesn't exist is left out.
  absl::Status Allow(const std::string& path, Access access);

  // Puts it in force for good. REQUIRES: no_new_privs, and this process has one thread.
  absl::Status Enforce() const;

  // Whether it will keep signals inside.
  bool scopes_signals() const;

 private:
  Landlock(UniqueFd ruleset, int abi) : ruleset_(std::move(ruleset)), abi_(abi) {}

  UniqueFd ruleset_;
  int abi_;
};

}  // namespace millrace
