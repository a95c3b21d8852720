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
  // Starts `worker_program` and has it load the model from `model_fd`, and a second time without
  // running it where that starts threads. Blocks until it is loaded and warm, each time at most for
  // `timeout`; `reply` is what the worker says, also where it fails. Call on a thread that lives as
  // long as the template.
  static absl::StatusOr<std::unique_ptr<ModelTemplate>> Start(const std::string& worker_program,
                                                              LoadCommand command, int model_fd,
                                                              int memory_fd, absl::Duration timeout,
                                                              LoadedReply* reply);

  // Forks a replica, which has a name for the log. UNAVAILABLE when the template has died. Blocks
  // for milliseconds.
  absl::StatusOr<ForkedReplica> Fork(const ForkCommand& command, std::string name)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until the template dies or `stop_event` has input: true; false after `timeout`.
  bool WatchUntilDeath(int stop_event, absl::Duration timeout);
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

  static absl::StatusOr<std::unique_ptr<ModelTemplate>> StartOnce(const std::string& worker_program,
                                                                  LoadCommand command, int model_fd,
                                                                  int memory_fd,
                                                                  absl::Duration timeout,
                                                                  LoadedReply* reply);

  const std::unique_ptr<ScratchFolder> folder_;  // The unpacked package, where it is still needed.
  ChildProcess process_;
  const ControlSocket control_;
  WorkerOutput output_;  // Of the thread that started it.
  Mutex mutex_;          // Held from a command to its reply.
};

// What the worker program says of itself and of this machine's GPUs. Blocks for as long as
// libtorch takes to load.
absl::StatusOr<WorkerDescription> DescribeWorker(const std::string& worker_program);

}  // namespace millrace
