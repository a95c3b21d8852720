// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"

namespace millrace {

// Which system calls a process of the worker may still make.
struct SyscallFilter {
  bool forks = false;         // Fork without any sharing.
  bool makes_files = false;   // Open files for writing, and make them.
  bool uses_devices = false;  // What a GPU's driver wants: ioctl, local sockets, shared memory.
  bool signals_any = false;   // Signals to other processes; else only to this one.
  bool adds_filters = false;  // Further filters, which can only take away.
  int control_fd = -1;        // Messages on this socket only.
};

// Takes from this process, and all that it forks, every system call that isn't allowed: it fails
// with EPERM, or with ENOSYS where callers know an older call instead; nothing dies of it. Process-
// directed calls that stay (limits, affinity, priority) reach this process only. For good; an
// error where the kernel refuses. REQUIRES: no_new_privs, and this process has one thread.
absl::Status InstallSyscallFilter(const SyscallFilter& filter);

}  // namespace millrace
