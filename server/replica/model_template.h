// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/mutex.h"
#include "server/channel/control_socket.h"
#include "server/channel/worker_protocol.h"
#include "server/replica/child_process.h"
#include "server/replica/scratch_folder.h"
#include "server/replica/worker_output.h"

namespace millrace {

// A replica's process as the template forked it: its own socket, the event by which it says that a
// batch has completed, and what it writes.
struct ForkedReplica {
  ChildProcess process;
  ControlSocket control;
  UniqueFd completion_event;
  WorkerOutput output;
};

// The process that has loaded one model version and forks its replicas. Thread-safe.
class ModelTemplate {
 public:
  struct StartOptions {
    std::string worker_program;
    absl::Duration timeout = absl::Minutes(10);
    // Load with the cores that nobody else wants. After a while of that it gets its share all the
    // same, so that a machine that is always busy can take a new version, too.
    bool background = false;
    int cancel_event = -1;  // An eventfd: once it is readable, the load ends. -1: none.
  };

  // What crosses to the process with the command.
  struct Descriptors {
    int model = -1;
    int memory = -1;
    int warmup_data = -1;  // -1: none.
  };

  // Starts the worker program and has it load the model, and a second time without running it where
  // that starts threads. Blocks until it is loaded and warm, each time at most for
  // the timeout; `reply` is what the worker says, also where it fails. CANCELLED where it was told
  // to end. Call on a thread that lives as long as the template.
  static absl::StatusOr<std::unique_ptr<ModelTemplate>> Start(const StartOptions& options,
                                                              LoadCommand command,
                                                              const Descriptors& descriptors,
                                                              LoadedReply* reply);

  // Forks a replica, which has a name for the log. UNAVAILABLE when the template has died. Blocks
  // for milliseconds; a template that doesn't answer for long counts as dead.
  absl::StatusOr<ForkedReplica> Fork(const ForkCommand& command, std::string name)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether Fork() has found that it is dead: then no further one succeeds.
  bool is_lost() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until the template dies or `stop_event` has input.
  void WatchUntilDeath(int stop_event);
  pid_t pid() const { return process_.pid(); }

  // Ends the process and says how it ended, and by what incident more is found in the log.
  std::string Bury();

 private:
  ModelTemplate(ChildProcess process, ControlSocket control, WorkerOutput output,
                std::unique_ptr<ScratchFolder> folder)
      : folder_(std::move(folder)),
        process_(std::move(process)),
        control_(std::move(control)),
        output_(std::move(output)) {}

  static absl::StatusOr<std::unique_ptr<ModelTemplate>> StartOnce(const StartOptions& options,
                                                                  LoadCommand command,
                                                                  const Descriptors& descriptors,
                                                                  LoadedReply* reply);

  const std::unique_ptr<ScratchFolder> folder_;  // The unpacked package, where it is still needed.
  ChildProcess process_;
  const ControlSocket control_;
  WorkerOutput output_;  // Of the thread that started it.
  mutable Mutex mutex_;  // Held from a command to its reply.
  bool lost_ ABSL_GUARDED_BY(mutex_) = false;
};

// What the worker program says of itself and of this machine's GPUs. Blocks for as long as
// libtorch takes to load.
absl::StatusOr<WorkerDescription> DescribeWorker(const std::string& worker_program);

}  // namespace millrace
