// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/channel/control_socket.h"
#include "server/inference/execution_mode.h"

namespace millrace {

struct SpawnOptions {
  // It gets the cores that nobody else wants (SCHED_IDLE), where this process could raise it again.
  bool background = false;
  // What its OpenMP threads do, unless this process's own environment says something of that.
  ThreadWait wait = ThreadWait::kPassive;
};

// A child of this process at the head of a process group, killed and reaped when it is destroyed.
// Thread-compatible.
class ChildProcess {
 public:
  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess() { KillAndReap(); }

  // Starts `program` with `arguments` in a process group of its own (a terminal's Ctrl-C is the
  // server's to handle), with no signal blocked, of the environment only what libraries that
  // workers use are told by it, with `control` as its file descriptor kWorkerControlFd, `output` as
  // its standard output and error, and no others. Call on a thread that lives as long as the child
  // may: the kernel's parent-death signal follows the thread.
  static absl::StatusOr<ChildProcess> Spawn(const std::string& program,
                                            const std::vector<std::string>& arguments,
                                            const ControlSocket& control, int output,
                                            SpawnOptions options = {});

  // Stands for a child that was started otherwise, and gives it a process group of its own.
  // INTERNAL where `pid` is no child of this process or another ChildProcess stands for it, so that
  // nobody else's process is ever killed.
  static absl::StatusOr<ChildProcess> Adopt(pid_t pid);

  // 0 when there is none.
  pid_t pid() const { return pid_; }

  // Readable once the process has ended, whoever else holds its sockets; -1 where the kernel is too
  // old for that, or there is no process.
  int end_fd() const { return end_.get(); }

  // Ends the process, where it hasn't ended, with all of its process group, and waits until it has.
  // Returns how it ended, e.g. "was killed by signal 9 (Killed)"; empty where there was none.
  std::string KillAndReap();

  // Lets a child that was started in the background compete with the others. Best effort.
  void BringToForeground() const;

 private:
  explicit ChildProcess(pid_t pid);

  pid_t pid_ = 0;
  UniqueFd end_;  // A pidfd.
};

// Whether this process and its children may come back from the background; raises RLIMIT_NICE for
// that where it may. False: then no child is started there.
bool AllowBackground();

// Makes this process the one that orphaned descendants become children of.
absl::Status BecomeSubreaper();

// Reaps children that have ended and that no ChildProcess stands for: what a template leaves
// behind when it dies in the middle of a fork.
void ReapStrangers();

}  // namespace millrace
