// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/access/credentials_store.h"
#include "server/app/core_balancer.h"
#include "server/app/health_monitor.h"
#include "server/app/resource_metrics.h"
#include "server/app/status_report.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/service_notifier.h"
#include "server/base/timer_thread.h"
#include "server/channel/worker_protocol.h"
#include "server/config/server_config.h"
#include "server/hardware/hardware.h"
#include "server/http/http_server.h"
#include "server/metrics/metrics_registry.h"
#include "server/metrics/server_metrics.h"
#include "server/repository/measured_plans.h"
#include "server/repository/model_repository.h"
#include "server/rpc/admin_server.h"
#include "server/rpc/health_server.h"
#include "server/rpc/listeners.h"
#include "server/rpc/rpc_server.h"
#include "server/tracing/request_tracer.h"
#include "server/transform/transform_stage.h"

namespace millrace {

// The composition root: builds every part in order, and ends them in reverse. Confined to main's
// thread, but for readiness(), checks() and status().
class ServerApp {
 public:
  // Finds out what the machine has, starts the listeners, and loads the models. Blocks until every
  // model is loaded or refused.
  static absl::StatusOr<std::unique_ptr<ServerApp>> Start(ServerConfig config);

  // Loads the models as Start() does, listens nowhere, and ends them again. INVALID_ARGUMENT with
  // the reasons where a model that is to be loaded can't be served.
  static absl::Status Check(ServerConfig config);

  // Reads again what may change while it serves: certificates and tokens, the log level, which the
  // caller has found out, and the model repository where it is watched. What can't be read stays as
  // it was. One line of the log says which was which.
  void Reload(const absl::StatusOr<LogLevel>& log_level);

  // Ends everything at once where Stop() hasn't been called.
  ~ServerApp();

  // Says "not ready", waits for the drain delay, answers every request that was read, and ends the
  // streams. Blocks. False when something had to be cancelled at the drain timeout; then the
  // process must end without destroying this, since a replica that doesn't answer may still hold a
  // call.
  bool Stop();

 private:
  explicit ServerApp(ServerConfig config)
      : config_(std::move(config)), log_level_(config_.log_level), timer_(Clock::Real()) {}

  absl::Status Build();
  // Whose models are loaded later.
  void BuildRepository(const Hardware& hardware, const MeasuredPlans::Options& plans);
  // What is wrong with the models that were to be loaded.
  absl::Status CheckModels() const;
  ModelLoader::Options LoaderOptions() const;
  // Measures the models that no plan has, before they are loaded.
  void TuneAtStart(const Hardware& hardware, const MeasuredPlans::Options& plans);
  absl::Status BuildListeners(const std::string& libtorch_version, int cpu_slots);
  absl::Status OpenCredentials();
  absl::Status BuildRpc(int cpu_slots);
  void WarnOfExposure() const;
  void ShowMetrics(bool gpus);
  absl::Status readiness() const;
  // What readiness() depends on.
  std::vector<std::pair<std::string, absl::Status>> checks() const;
  std::string status() const;
  // Logs once that the service manager can't be told.
  void MindManager(const absl::Status& told);
  // Called by the health monitor, once at a time.
  void ShowHealth(const std::string& name, const absl::Status& state);

  const ServerConfig config_;
  const ServiceNotifier manager_ = ServiceNotifier::FromEnvironment();
  LogLevel log_level_;
  TimerThread timer_;
  MetricsRegistry registry_;
  std::unique_ptr<ServerMetrics> metrics_;
  std::unique_ptr<TransformStage> transforms_;
  std::unique_ptr<ModelRepository> repository_;
  std::unique_ptr<CredentialsStore> credentials_;
  std::optional<Door> door_;
  std::unique_ptr<ResourceMetrics> resources_;
  std::unique_ptr<RequestTracer> tracer_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<AdminServer> admin_;    // Null where nobody may administer the server.
  std::unique_ptr<HealthServer> probes_;  // Null where they have no address of their own.
  std::unique_ptr<StatusReport> report_;
  std::atomic<const StatusReport*> shown_report_{nullptr};  // Null while there is none.
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<HealthMonitor> health_;
  std::unique_ptr<CoreBalancer> balancer_;
  std::optional<bool> shown_ready_;     // What the log says last of the server.
  std::atomic<bool> announced_{false};  // The service manager has heard that it is ready.
  std::atomic<bool> manager_is_deaf_{false};
  std::atomic<bool> loaded_{false};
  std::atomic<bool> draining_{false};
};

// What this machine has, with the GPUs that the worker program can use.
Hardware DetectAll(const WorkerDescription& worker);

// "millrace-worker" in the directory of this program.
std::string DefaultWorkerProgram();

// The versions of Millrace and gRPC, and of the worker's libtorch where it can be asked.
std::string DescribeVersions(const std::string& worker_program);

}  // namespace millrace
