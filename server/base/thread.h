// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace millrace {

// A named thread, joined when it is destroyed. Confined to its owner; not movable, so that it can
// be a member declared last and end before what it uses.
class Thread {
 public:
  // Starts `body` on a thread named `name` (cut to 15 bytes, the kernel's limit), pinned to `cpus`
  // where that is not empty.
  Thread(const std::string& name, absl::AnyInvocable<void()> body, std::vector<int> cpus = {});

  // Waits for the body to return.
  ~Thread();

  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

 private:
  std::thread thread_;
};

}  // namespace millrace
