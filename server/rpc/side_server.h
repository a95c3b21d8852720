// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/listeners.h"
#include "server/rpc/served_queues.h"

namespace millrace {

// What a gRPC server beside the one for requests consists of, but for its services: a gate, one
// completion queue with its thread, listeners, and gRPC's own. Confined to its owner, which calls,
// once each and in this order, Listen(), Serve() and Stop(). The services outlive Stop().
class SideServer {
 public:
  // What the services' calls enter by.
  CallGate& gate() { return gate_; }

  // Binds the addresses, for a server that `builder` is to build. `door` outlives it. An address
  // that is taken or makes no sense is an error that names it.
  absl::Status Listen(Listeners::Options options, const Door& door, grpc::ServerBuilder& builder);

  // Builds the server, has `start` make the services wait for calls on the queue, and takes
  // connections.
  absl::Status Serve(grpc::ServerBuilder& builder,
                     const std::function<void(grpc::ServerCompletionQueue*)>& start);

  // Cancels the calls that are going on, and waits for them. Also right where Listen() or Serve()
  // failed or wasn't called.
  void Stop();

  // REQUIRES: Listen() succeeded, and Stop() wasn't called.
  const Listeners& listeners() const { return *listeners_; }

 private:
  CallGate gate_;
  ServedQueues queues_;
  std::unique_ptr<Listeners> listeners_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace millrace
