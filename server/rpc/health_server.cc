// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/health_server.h"

#include <utility>

#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"
#include "server/base/status.h"
#include "server/rpc/transport.h"

namespace millrace {
namespace {

constexpr int kMaxMessageBytes = 4 << 10;
constexpr size_t kMostConnections = 100;
constexpr size_t kMostWatches = 100;

}  // namespace

HealthServer::HealthServer() : health_(server_.gate(), kMostWatches) {}

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
  // No other service is there, so no call needs to be looked at.
  MILLRACE_RETURN_IF_ERROR(
      server_.Listen({.addresses = std::move(addresses),
                      .tls = false,
                      .tokens = false,
                      .limits = {.most = kMostConnections, .most_per_peer = kMostConnections}},
                     door, builder));
  return server_.Serve(builder,
                       [this](grpc::ServerCompletionQueue* queue) { health_.Start(queue); });
}

HealthServer::~HealthServer() {
  health_.Shutdown();
  server_.Stop();
}

}  // namespace millrace
