// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/health_server.h"

#include <utility>

#include "absl/time/clock.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"
#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/rpc/transport.h"

namespace millrace {
namespace {

constexpr int kMaxMessageBytes = 4 << 10;
constexpr size_t kMostConnections = 100;
constexpr size_t kMostWatches = 100;

}  // namespace

HealthServer::HealthServer() : health_(gate_, kMostWatches) {}

absl::StatusOr<std::unique_ptr<HealthServer>> HealthServer::Create(
    std::vector<std::string> addresses, const Door& door) {
  std::unique_ptr<HealthServer> server(new HealthServer());
  MILLRACE_RETURN_IF_ERROR(server->Start(std::move(addresses), door));
  return server;
}

absl::Status HealthServer::Start(std::vector<std::string> addresses, const Door& door) {
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  SetTransport(builder, kMaxMessageBytes);
  builder.RegisterService(health_.service());
  queues_.Add(builder, 1);
  // No other service is there, so no call needs to be looked at.
  MILLRACE_ASSIGN_OR_RETURN(
      listeners_,
      Listeners::Open({.addresses = std::move(addresses),
                       .tls = false,
                       .tokens = false,
                       .limits = {.most = kMostConnections, .most_per_peer = kMostConnections}},
                      door, builder));
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) return absl::InternalError("gRPC did not start; its log says why");
  health_.Start(queues_.all()[0].get());
  queues_.Serve();
  return listeners_->Start();
}

HealthServer::~HealthServer() {
  health_.Shutdown();
  if (listeners_ != nullptr) listeners_->Close();
  if (server_ != nullptr) server_->Shutdown(absl::ToChronoTime(WallTime()));
  MILLRACE_CHECK(gate_.Close(Clock::Real(), absl::InfiniteFuture()),
                 "A health check did not come back.");
}

}  // namespace millrace
