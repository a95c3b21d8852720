// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/admin_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "grpcpp/ext/channelz_service_plugin.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/server_context.h"
#include "proto/admin.grpc.pb.h"
#include "proto/reflection_v1.grpc.pb.h"
#include "proto/reflection_v1alpha.grpc.pb.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/rpc/status_conversion.h"
#include "server/rpc/transport.h"

namespace millrace {
namespace {

constexpr int kMaxMessageBytes = 64 << 10;
constexpr int kMaxThreads = 4;
constexpr size_t kMostConnections = 100;
constexpr absl::Duration kLongestCall = absl::Minutes(1);  // Where it has no deadline.

// How long a call may take.
absl::Duration TimeLeft(const grpc::ServerContext& context) {
  const absl::Duration left = absl::FromChrono(context.deadline()) - WallTime();
  return std::clamp(left, absl::ZeroDuration(), kLongestCall);
}

void Describe(const ServedModel& model, v1::ModelReplicas* to) {
  to->set_model(model.signature().model_name());
  to->set_version(model.signature().version());
  to->set_most(model.replicas().most_replicas());
  for (const ReplicaPool::ReplicaInfo& replica : model.replicas().List()) {
    v1::Replica& one = *to->add_replicas();
    one.set_index(replica.index);
    one.set_pid(replica.pid);
    one.set_ready(replica.state.ok());
    one.set_reason(WireMessage(replica.state));
    one.set_busy_ns(absl::ToInt64Nanoseconds(replica.busy_for.value_or(absl::ZeroDuration())));
    const ReplicaPlacement& placement = replica.placement;
    one.set_device(placement.device == DeviceKind::kGpu
                       ? absl::StrCat("gpu ", placement.device_index)
                       : "cpu");
    for (const int cpu : placement.cpus) one.add_cpus(cpu);
    one.set_threads(placement.threads);
  }
}

}  // namespace

class AdminServer::Service final : public v1::Admin::Service {
 public:
  Service(ModelRepository& repository, std::function<void()> drain)
      : repository_(repository), drain_(std::move(drain)) {}

  grpc::Status ListReplicas(grpc::ServerContext*, const v1::ListReplicasRequest* request,
                            v1::ListReplicasResponse* response) override {
    if (request->model().empty()) {
      for (const auto& model : repository_.Loaded()) Describe(*model, response->add_models());
      return grpc::Status::OK;
    }
    const auto model = repository_.Find(request->model(), request->version());
    if (!model.ok()) return ToGrpc(model.status());
    Describe(**model, response->add_models());
    return grpc::Status::OK;
  }

  grpc::Status Resize(grpc::ServerContext* context, const v1::ResizeRequest* request,
                      v1::ResizeResponse* response) override {
    const auto model = repository_.Find(request->model(), request->version());
    if (!model.ok()) return ToGrpc(model.status());
    response->set_before((*model)->replicas().replicas());
    return ToGrpc((*model)->replicas().Resize(request->replicas(), TimeLeft(*context)));
  }

  grpc::Status Restart(grpc::ServerContext* context, const v1::RestartRequest* request,
                       v1::RestartResponse* response) override {
    const auto model = repository_.Find(request->model(), request->version());
    if (!model.ok()) return ToGrpc(model.status());
    const absl::Status restarted = (*model)->replicas().Restart(TimeLeft(*context));
    response->set_restarted((*model)->replicas().replicas());
    return ToGrpc(restarted);
  }

  grpc::Status Drain(grpc::ServerContext*, const v1::DrainRequest*, v1::DrainResponse*) override {
    LogInfo("told to end in order");
    drain_();
    return grpc::Status::OK;
  }

 private:
  ModelRepository& repository_;
  const std::function<void()> drain_;
};

AdminServer::AdminServer(Options options, ModelRepository& repository)
    : options_(std::move(options)),
      service_(std::make_unique<Service>(repository, options_.drain)),
      control_(server_.gate(), inference_, repository, options_.control),
      reflection_(
          server_.gate(),
          {v1::Admin::service_full_name(), inference::GRPCInferenceService::service_full_name(),
           grpc::reflection::v1::ServerReflection::service_full_name(),
           grpc::reflection::v1alpha::ServerReflection::service_full_name()}) {}

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Create(Options options,
                                                                 ModelRepository& repository,
                                                                 const Door& door) {
  options.control.administers = true;
  std::unique_ptr<AdminServer> server(new AdminServer(std::move(options), repository));
  MILLRACE_RETURN_IF_ERROR(server->Start(door));
  return server;
}

absl::Status AdminServer::Start(const Door& door) {
  if (options_.channelz) grpc::channelz::experimental::InitChannelzService();
  using Builder = grpc::ServerBuilder;
  Builder builder;
  SetTransport(builder, kMaxMessageBytes, options_.channelz);
  builder.SetSyncServerOption(Builder::SyncServerOption::NUM_CQS, 1);
  builder.SetSyncServerOption(Builder::SyncServerOption::MIN_POLLERS, 1);
  builder.SetSyncServerOption(Builder::SyncServerOption::MAX_POLLERS, 2);
  grpc::ResourceQuota quota("millrace-admin");
  quota.SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  builder.RegisterService(service_.get());
  builder.RegisterService(&inference_);
  if (options_.reflection) {
    builder.RegisterService(reflection_.v1());
    builder.RegisterService(reflection_.v1alpha());
  }
  // Always checked: nobody waits for calls of the inference methods, which the service declares.
  Listeners::Options listen = {
      .addresses = options_.listen,
      .offered = BitOf(MethodClass::kRead) | BitOf(MethodClass::kAdmin),
      .always_check = true,
      .limits = {.most = kMostConnections, .most_per_peer = kMostConnections}};
  MILLRACE_RETURN_IF_ERROR(server_.Listen(std::move(listen), door, builder));
  const CredentialsStore& store = *door.credentials;
  if (server_.listeners().reaches_network() &&
      !(store.uses_tls() && (store.demands_certificates() || store.demands_tokens()))) {
    return absl::FailedPreconditionError(absl::StrCat(
        "operators' calls are not taken from other machines (",
        absl::StrJoin(options_.listen, ", "),
        ") without TLS and a way to tell who calls: listen on the loopback or a unix socket, or "
        "give --tls-cert, --tls-key and one of --tls-client-ca and --token-file"));
  }
  return server_.Serve(builder, [this](grpc::ServerCompletionQueue* queue) {
    control_.Start(queue);
    if (options_.reflection) reflection_.Start(queue);
  });
}

AdminServer::~AdminServer() {
  reflection_.Shutdown();
  server_.Stop();
}

}  // namespace millrace
