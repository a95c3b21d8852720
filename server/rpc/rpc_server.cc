// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/rpc_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/support/log.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server_builder.h"
#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/rpc/infer_call.h"
#include "server/rpc/infer_stream.h"
#include "server/rpc/transport.h"

namespace millrace {
namespace {

// Beyond the deadline, for cancelled calls to come back.
constexpr absl::Duration kCancelGrace = absl::Seconds(1);

// From the end of the last stream to the end of its connection.
constexpr absl::Duration kFarewell = absl::Milliseconds(500);

// What gRPC has to say goes where everything else does.
void TakeLogLine(gpr_log_func_args* line) {
  Log(line->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarning : LogLevel::kDebug,
      absl::StrCat("gRPC: ", line->message));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Create(Options options, Context context) {
  std::unique_ptr<RpcServer> server(new RpcServer(std::move(options), context));
  MILLRACE_RETURN_IF_ERROR(server->Start());
  return server;
}

RpcServer::RpcServer(Options options, Context context)
    : options_(std::move(options)),
      context_(context),
      open_streams_(options_.streams.max_streams),
      load_reports_(options_.load_reports ? std::make_optional<LoadReports>(*context_.clock)
                                          : std::nullopt),
      infer_context_{.service = &service_,
                     .repository = context_.repository,
                     .metrics = context_.metrics,
                     .clock = context_.clock,
                     .timer = context_.timer,
                     .gate = &gate_,
                     .connection_flows = &connection_flows_,
                     .tracer = context_.tracer,
                     .load_reports = load_reports_ ? &*load_reports_ : nullptr,
                     .limits = options_.streams},
      control_(gate_, service_, *context_.repository, options_.control),
      health_(gate_) {
  if (!options_.reflection) return;
  reflection_ = std::make_unique<ReflectionService>(
      gate_,
      std::vector<std::string>{inference::GRPCInferenceService::service_full_name(),
                               grpc::health::v1::Health::service_full_name(),
                               grpc::reflection::v1::ServerReflection::service_full_name(),
                               grpc::reflection::v1alpha::ServerReflection::service_full_name()});
}

std::string GrpcVersion() { return grpc::Version(); }

RpcServer::~RpcServer() {
  if (!stopped_) Stop(context_.clock->Now());
  MILLRACE_CHECK(all_back_, "A call did not come back after it was cancelled.");
}

absl::Status RpcServer::Start() {
  gpr_set_log_function(TakeLogLine);
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  SetTransport(builder, options_.max_message_bytes, options_.channelz);
  SetConnectionAge(builder, options_.streams.connection_age, options_.streams.age_grace);
  if (options_.grpc_memory_bytes > 0) {
    builder.SetResourceQuota(grpc::ResourceQuota("millrace").Resize(options_.grpc_memory_bytes));
  }
  builder.RegisterService(&service_);
  builder.RegisterService(health_.service());
  if (reflection_ != nullptr) {
    builder.RegisterService(reflection_->v1());
    builder.RegisterService(reflection_->v1alpha());
  }
  queues_.Add(builder, options_.io_threads);
  Listeners::Options listen = options_.listen;
  listen.offered =
      BitOf(MethodClass::kOpen) | BitOf(MethodClass::kInfer) | BitOf(MethodClass::kRead);
  MILLRACE_ASSIGN_OR_RETURN(listeners_,
                            Listeners::Open(std::move(listen), *context_.door, builder));
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) return absl::InternalError("gRPC did not start; its log says why");
  for (const auto& queue : queues_.all()) {
    for (int i = 0; i < kUnaryAccepts; ++i) InferCall::Accept(infer_context_, queue.get());
    for (int i = 0; i < kStreamAccepts; ++i) {
      InferStream::Accept(infer_context_, open_streams_, queue.get());
    }
    for (int i = 0; i < kControlAccepts; ++i) control_.Start(queue.get());
    health_.Start(queue.get());
    if (reflection_ != nullptr) reflection_->Start(queue.get());
  }
  queues_.Serve();
  return listeners_->Start();
}

bool RpcServer::Stop(absl::Time deadline) {
  stopped_ = true;
  health_.Shutdown();
  if (reflection_ != nullptr) reflection_->Shutdown();
  if (listeners_ != nullptr) listeners_->Close();
  // Streams end before their connections do. A connection that is closed while its client still
  // sends is reset, and the reset would overtake the last answers and the trailer.
  if (open_streams_.Drain()) {
    open_streams_.WaitUntilNone(*context_.clock, deadline);
    context_.clock->SleepFor(kFarewell);
  }
  bool in_time = true;
  if (server_ != nullptr) {
    // Returns once every call has ended; at the deadline gRPC cancels those that have not.
    server_->Shutdown(absl::ToChronoTime(WallTime() + (deadline - context_.clock->Now())));
    in_time = context_.clock->Now() < deadline;
  }
  const absl::Time latest = std::max(deadline, context_.clock->Now()) + kCancelGrace;
  if (!gate_.Close(*context_.clock, latest)) return false;
  queues_.Shutdown();
  all_back_ = true;
  return in_time;
}

}  // namespace millrace
