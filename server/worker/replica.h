// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/base/unique_fd.h"
#include "server/channel/control_socket.h"
#include "server/channel/model_memory.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/model.h"
#include "server/worker/sandbox.h"

namespace millrace {

// What a replica is made of; a fork's copy of the template's, but for its own descriptors.
struct ReplicaParts {
  const LoadCommand& load;
  const ForkCommand& fork;
  Model& model;
  const ModelMemory& memory;
  Sandbox& sandbox;
  bool warm = false;      // The template has run the model.
  ControlSocket control;  // To the server.
  UniqueFd completion;    // The eventfd that wakes the server.
  UniqueFd output;        // What the server reads of it: its standard output and error.
};

// Lives as a replica: ties itself to the server, keeps no descriptor but its own, completes the
// sandbox, pins itself, starts its threads, readies the model where the template could not, limits
// its memory, says so, and runs batches until it is killed. Returns only where it can't serve,
// which the server has then been told unless it is gone, or serve on.
void RunReplica(ReplicaParts parts);

}  // namespace millrace
