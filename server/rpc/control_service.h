// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/completion_queue.h"
#include "proto/grpc_service.grpc.pb.h"
#include "server/repository/model_repository.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/infer_context.h"

namespace millrace {

// The methods of GRPCInferenceService that carry no tensors: liveness, readiness, metadata,
// configs, statistics, the index, loading and unloading. What Millrace doesn't offer answers
// UNIMPLEMENTED; what is for operators is refused where they aren't served. Thread-safe.
// Outlives its calls: destroy it after the gate was closed.
class ControlService {
 public:
  struct Options {
    std::string version;                  // Millrace's.
    bool administers = false;             // Loads and unloads.
    std::function<absl::Status()> ready;  // Why the server isn't ready; OK when it is.
  };

  ControlService(CallGate& gate, RawInferenceService& service, ModelRepository& repository,
                 Options options);
  ~ControlService();

  // Waits for calls on `queue`. Call after the server was built.
  void Start(grpc::ServerCompletionQueue* queue);

 private:
  class Methods;
  const std::unique_ptr<Methods> methods_;
};

}  // namespace millrace
