// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace millrace {

// Has the calling thread run on these CPUs alone. Where the kernel refuses, it goes on wherever it
// may, which is slower and still right.
void PinThisThread(const std::vector<int>& cpus);

// The CPUs, ascending, on which the main thread of process `pid` may run; none where it has gone.
std::vector<int> CpusOf(pid_t pid);

// A named thread, joined when it is destroyed. Confined to its owner; not movable, so that it can
// be a member declared last and end before what it uses.
class Thread {
 public:
  // Starts `body` on a thread named `name` (cut to 15 bytes, the kernel's limit).
  Thread(const std::string& name, absl::AnyInvocable<void()> body);

  // Waits for the body to return.
  ~Thread();

  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

 private:
  std::thread thread_;
};

}  // namespace millrace
