// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/base/sandbox_mode.h"

namespace millrace {

// Shuts a worker process in, so that a model's own code, which runs from the first byte that is
// loaded, reaches nothing but the model's memory. Confined to the main thread; each step is for
// good, and inherited by forks.
//
//   template: GiveUpPrivileges(), then a fork inspects the model's file: Confine(kInspector),
//             then Confine(kTemplate), and only then the model is opened;
//   replica:  Confine(kReplica), after the fork.
//
// A part that the kernel refuses is an error where the sandbox is required; else it is left out
// and told by gaps().
class Sandbox {
 public:
  struct Options {
    SandboxMode mode = SandboxMode::kOn;
    bool on_gpu = false;  // Then the level is looser: the driver's files, calls and sockets, too.
    std::string folder;   // Where the model's package is unpacked; empty: nowhere.
  };
  enum class Role {
    kInspector,  // May fill the folder.
    kTemplate,   // May fork, and read the folder.
    kReplica,    // May start threads, and send signals to itself alone.
  };

  explicit Sandbox(Options options) : options_(std::move(options)) {}

  // Leaves root for the user kWorkerUid, drops every capability and the way to new ones, and
  // limits core files and descriptors. The kernel forgets PR_SET_PDEATHSIG here.
  // FAILED_PRECONDITION names the part that was refused.
  absl::Status GiveUpPrivileges();

  // Leaves this process only the files and system calls that `role` needs.
  // FAILED_PRECONDITION names the part that was refused. REQUIRES: this process has one thread.
  absl::Status Confine(Role role);

  // The parts that were refused so far, each as a sentence for the log.
  const std::vector<std::string>& gaps() const { return gaps_; }

 private:
  absl::Status LimitFiles(Role role);
  absl::Status FilterCalls(Role role);
  // OK where the part may be left out.
  absl::Status Settle(absl::string_view part, const absl::Status& status);

  const Options options_;
  std::vector<std::string> gaps_;
  bool scopes_signals_ = false;
};

}  // namespace millrace
