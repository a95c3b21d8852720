// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/server.h"
#include "server/base/clock.h"
#include "server/base/timer.h"
#include "server/metrics/server_metrics.h"
#include "server/repository/model_repository.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/connection_flows.h"
#include "server/rpc/control_service.h"
#include "server/rpc/health_service.h"
#include "server/rpc/infer_context.h"
#include "server/rpc/listeners.h"
#include "server/rpc/load_reports.h"
#include "server/rpc/open_streams.h"
#include "server/rpc/reflection_service.h"
#include "server/rpc/served_queues.h"
#include "server/tracing/request_tracer.h"

namespace millrace {

// The gRPC server: listeners, completion queues with a thread each, and the services. Thread-safe.
class RpcServer {
 public:
  struct Options {
    Listeners::Options listen;  // At least one address. What it offers is set by the server.
    bool reflection = false;    // Offer it here, too.
    bool channelz = false;      // Count for the administrative server's channelz.
    int io_threads = 1;
    int max_message_bytes = 64 << 20;
    // The quota (grpc::ResourceQuota) of all connections together; 0: none. It is an emergency
    // brake: above it gRPC refuses connections and cancels calls at random.
    size_t grpc_memory_bytes = 0;
    StreamLimits streams;
    bool load_reports = false;  // Unary answers bring one in a trailer.
    ControlService::Options control;
  };
  // All of it outlives the server.
  struct Context {
    Clock* clock;
    Timer* timer;
    ModelRepository* repository;
    ServerMetrics* metrics;
    const Door* door;
    RequestTracer* tracer;
  };

  // Listens and serves. An address that is taken or makes no sense is an error that names it.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Create(Options options, Context context);

  // Stops at once where Stop() hasn't been called.
  ~RpcServer();

  // The addresses that it listens on, with the ports that were chosen.
  const std::vector<std::string>& addresses() const { return listeners_->addresses(); }

  // Connections, and calls that were denied.
  const Listeners& listeners() const { return *listeners_; }

  // Open streams, as OpenStreams tells them.
  const OpenStreams& streams() const { return open_streams_; }

  // Says whether `name` takes requests: "" is the whole server, else a service or a model.
  void SetHealth(const std::string& name, bool serving) { health_.SetStatus(name, serving); }

  // Makes every health status NOT_SERVING.
  void DrainHealth() { health_.Drain(); }

  // Takes no new connections (clients are told by GOAWAY) and reads no more requests, answers every
  // request that was read, ends the streams, and cancels what isn't done at `deadline`. Blocks.
  // True when nothing had to be cancelled. Where it is false, a call may still be held by a replica
  // that doesn't answer: then the process must end without destroying the server.
  bool Stop(absl::Time deadline);

 private:
  RpcServer(Options options, Context context);

  absl::Status Start();

  const Options options_;
  const Context context_;
  CallGate gate_;
  RawInferenceService service_;
  OpenStreams open_streams_;
  ConnectionFlows connection_flows_;
  std::optional<LoadReports> load_reports_;
  const InferContext infer_context_;
  ControlService control_;
  HealthService health_;
  std::unique_ptr<ReflectionService> reflection_;  // Null where it isn't offered.
  ServedQueues queues_;
  std::unique_ptr<Listeners> listeners_;
  std::unique_ptr<grpc::Server> server_;
  bool stopped_ = false;
  bool all_back_ = false;  // Every call.
};

// The version of the gRPC library.
std::string GrpcVersion();

}  // namespace millrace
