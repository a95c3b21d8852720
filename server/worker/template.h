// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/channel/control_socket.h"
#include "server/channel/model_memory.h"
#include "server/channel/sealed_bytes.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/model.h"
#include "server/worker/sandbox.h"

namespace millrace {

// The template process: shuts itself in, loads and warms a model once, single-threaded, and then
// only forks replicas from its image. Confined to the main thread.
//
// A process that has started threads can't be forked: where running the model starts some (it
// calls torch.jit.fork), the template says so, and the server starts another one that loads and
// doesn't run; each replica then warms itself.
class Template {
 public:
  explicit Template(ControlSocket control) : control_(std::move(control)) {}

  // Lives as a template until the server closes the control socket. An error says why it can't
  // go on.
  absl::Status Run();

 private:
  absl::Status Load(const ControlMessage& message, LoadedReply& reply);
  absl::Status WarmUp(LoadedReply& reply);
  // FAILED_PRECONDITION where the model computes something else in its mode.
  absl::Status CheckMode(int model_fd, Notes& notes);
  // FAILED_PRECONDITION where rows get other results in a batch than alone.
  absl::Status CheckBatching(Notes& notes);
  absl::StatusOr<pid_t> Fork(ControlMessage message);

  ControlSocket control_;
  LoadCommand command_;
  std::optional<Sandbox> sandbox_;
  std::unique_ptr<ModelMemory> memory_;
  SealedBytes warmup_data_;
  std::unique_ptr<Model> model_;
  bool warm_ = false;
};

}  // namespace millrace
