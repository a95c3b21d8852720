// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "grpcpp/completion_queue.h"
#include "grpcpp/server_builder.h"
#include "server/base/thread.h"

namespace millrace {

// The completion queues of one gRPC server, and the I/O threads that serve them, one each. Confined
// to its owner.
class ServedQueues {
 public:
  // Ends them where Shutdown() wasn't called.
  ~ServedQueues() { Shutdown(); }

  // Adds `count` queues to a server that is to be built.
  void Add(grpc::ServerBuilder& builder, int count);

  // Starts the threads. Call after the server was built.
  void Serve();

  // Shuts the queues down and waits until they are empty. REQUIRES: the server is shut down, and
  // nobody starts operations any more (see CallGate). May be called again.
  void Shutdown();

  const std::vector<std::unique_ptr<grpc::ServerCompletionQueue>>& all() const { return queues_; }

 private:
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues_;
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace millrace
