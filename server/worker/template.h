// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/unique_fd.h"
#include "server/channel/control_socket.h"
#include "server/channel/model_memory.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/model.h"

namespace millrace {

// The server's load command with what came along.
struct LoadMessage {
  std::string text;
  UniqueFd model;
  UniqueFd memory;
};

// The template process: loads and warms a model once, single-threaded, and then only forks
// replicas from its image. Confined to the main thread.
//
// A process that has started threads can't be forked: where running the model starts some (it
// calls torch.jit.fork), the template starts over as a new program that loads and doesn't run,
// and each replica warms itself.
class Template {
 public:
  // `again` is the load command of a template that started over; nullopt: the server sends it.
  Template(ControlSocket control, std::optional<LoadMessage> again)
      : control_(std::move(control)), again_(std::move(again)), load_only_(again_.has_value()) {}

  // Lives as a template until the server closes the control socket. An error says why it can't
  // go on.
  absl::Status Run();

 private:
  absl::StatusOr<LoadMessage> ReceiveLoad();
  absl::Status Load(const LoadMessage& message, Notes& notes);
  absl::Status WarmUpOrStartOver(const LoadMessage& message, Notes& notes);
  // FAILED_PRECONDITION where rows get other results in a batch than alone.
  absl::Status CheckBatching(Notes& notes);
  absl::Status StartOver(const LoadMessage& message);
  absl::StatusOr<pid_t> Fork(ControlMessage message);

  ControlSocket control_;
  std::optional<LoadMessage> again_;
  const bool load_only_;
  LoadCommand command_;
  std::unique_ptr<ModelMemory> memory_;
  std::unique_ptr<Model> model_;
  bool warm_ = false;
};

// Takes over from a template that started over: `command`, `model` and `memory` are the numbers of
// the descriptors it left open, as text.
absl::StatusOr<LoadMessage> TakeOver(const std::string& command, const std::string& model,
                                     const std::string& memory);

}  // namespace millrace
