// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/app/server_app.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "server/access/listen_address.h"
#include "server/app/build_commit.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/hardware/hardware.h"
#include "server/measuring/repository_tuner.h"
#include "server/metrics/metric_names.h"
#include "server/replica/child_process.h"
#include "server/replica/model_template.h"
#include "server/tuning/machine_fingerprint.h"
#include "server/tuning/plan_file.h"

namespace millrace {
namespace {

constexpr char kServiceName[] = "inference.GRPCInferenceService";

// Reading and writing connections is cheap beside computing: a thread per four cores keeps up.
int IoThreads(int configured, int cpu_slots) {
  return configured > 0 ? configured : std::clamp(cpu_slots / 4, 1, 16);
}

std::string WorkerProgram(const ServerConfig& config) {
  return config.worker_program.empty() ? DefaultWorkerProgram() : config.worker_program;
}

ModelControl ControlOf(const ServerConfig& config) {
  ModelControl control = {.mode = ModelControl::Mode::kNone,
                          .load_at_start = config.load_models,
                          .settle_time = config.watch_settle,
                          .poll_interval = config.watch_poll};
  if (config.model_control == "explicit") control.mode = ModelControl::Mode::kExplicit;
  if (config.model_control == "watch") control.mode = ModelControl::Mode::kWatch;
  return control;
}

// Lets this process have as many file descriptors as it may ask for, and returns how many.
int RaiseDescriptorLimit() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit raised = {limit.rlim_max, limit.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 30));
}

bool AnyIsGuarded(const std::vector<std::string>& addresses) {
  return std::any_of(addresses.begin(), addresses.end(), [](const std::string& text) {
    const absl::StatusOr<ListenAddress> listen = ParseListenAddress(text);
    return listen.ok() && listen->guard;
  });
}

// A connection takes two; the rest is for models and files.
int MostConnections(int configured, int descriptors) {
  return configured > 0 ? configured : std::clamp(descriptors / 3, 1, 10000);
}

// A file that is named must be a plan; one for another machine is ignored later, and the log says
// so.
absl::StatusOr<MeasuredPlans::Options> PlansOf(const ServerConfig& config, const Hardware& hardware,
                                               const std::string& libtorch_version) {
  MeasuredPlans::Options plans = {.machine = FingerprintOf(hardware, libtorch_version),
                                  .ignore = config.plan == "none",
                                  .file = ""};
  if (plans.ignore || config.plan.empty()) return plans;
  plans.file = config.plan;
  MILLRACE_RETURN_IF_ERROR(Annotate(ReadPlanFile(plans.file).status(), "--plan"));
  return plans;
}

// Of connections and calls at the door.
std::vector<Sample> AccessSamples(const Listeners& listeners) {
  const ConnectionAcceptor& acceptor = listeners.acceptor();
  const DeniedCalls& denied = listeners.denied();
  std::vector<Sample> samples = {
      {&kConnections, {}, static_cast<double>(acceptor.open())},
      {&kDeniedCallsTotal, {"unauthenticated"}, static_cast<double>(denied.unauthenticated)},
      {&kDeniedCallsTotal, {"permission_denied"}, static_cast<double>(denied.permission_denied)}};
  for (const ConnectionRefusal each : {ConnectionRefusal::kLimit, ConnectionRefusal::kPeerLimit,
                                       ConnectionRefusal::kUser, ConnectionRefusal::kDescriptors}) {
    samples.push_back(
        {&kRefusedConnectionsTotal, {NameOf(each)}, static_cast<double>(acceptor.refused(each))});
  }
  if (const GuardRelay* const guard = listeners.guard()) {
    for (const FrameFault each :
         {FrameFault::kMalformed, FrameFault::kHeaderBlock, FrameFault::kFlood}) {
      samples.push_back(
          {&kGuardClosedTotal, {NameOf(each)}, static_cast<double>(guard->closed(each))});
    }
  }
  return samples;
}

}  // namespace

Hardware DetectAll(const WorkerDescription& worker) {
  Hardware hardware = DetectHardware();
  for (const WorkerDescription::Gpu& gpu : worker.gpus) {
    hardware.accelerators.push_back({.index = gpu.index,
                                     .name = gpu.name,
                                     .total_memory_bytes = gpu.total_memory_bytes,
                                     .free_memory_bytes = gpu.free_memory_bytes});
  }
  return hardware;
}

absl::StatusOr<std::unique_ptr<ServerApp>> ServerApp::Start(ServerConfig config) {
  std::unique_ptr<ServerApp> app(new ServerApp(std::move(config)));
  MILLRACE_RETURN_IF_ERROR(app->Build());
  return app;
}

absl::Status ServerApp::Check(ServerConfig config) {
  ServerApp app(std::move(config));
  std::vector<std::string> problems;
  const absl::Status credentials = app.OpenCredentials();
  if (!credentials.ok()) problems.emplace_back(credentials.message());
  absl::Status models = app.Build();
  if (models.ok()) models = app.CheckModels();
  if (!models.ok()) problems.emplace_back(models.message());
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

absl::Status ServerApp::Build() {
  MILLRACE_RETURN_IF_ERROR(BecomeSubreaper());
  const std::string worker_program = WorkerProgram(config_);
  MILLRACE_ASSIGN_OR_RETURN(const WorkerDescription worker, DescribeWorker(worker_program));
  const Hardware hardware = DetectAll(worker);
  LogInfo("Millrace ", MILLRACE_VERSION, " (", BuildCommit(), "), gRPC ", GrpcVersion(),
          ", libtorch ", worker.libtorch_version);
  LogInfo(DescribeHardware(hardware));
  MILLRACE_ASSIGN_OR_RETURN(const MeasuredPlans::Options plans,
                            PlansOf(config_, hardware, worker.libtorch_version));

  BuildRepository(hardware, plans);
  if (config_.check_only) return repository_->Start();
  MILLRACE_RETURN_IF_ERROR(BuildListeners(worker.libtorch_version, hardware.cpu.slots()));
  ShowMetrics(!hardware.accelerators.empty());
  if (config_.tune_at_start > absl::ZeroDuration()) TuneAtStart(hardware, plans);

  MILLRACE_RETURN_IF_ERROR(repository_->Start());
  balancer_ = std::make_unique<CoreBalancer>(
      CoreBalancer::Context{.clock = &Clock::Real(),
                            .repository = repository_.get(),
                            .transforms = transforms_.get(),
                            .fixed = config_.transform_workers != 0});
  loaded_ = true;
  health_->Look();
  return absl::OkStatus();
}

void ServerApp::BuildRepository(const Hardware& hardware, const MeasuredPlans::Options& plans) {
  const int workers = config_.transform_workers;
  transforms_ = std::make_unique<TransformStage>(workers == 0 ? hardware.cpu.slots() : workers,
                                                 Clock::Real());
  repository_ = std::make_unique<ModelRepository>(
      ModelRepository::Options{
          .directories = config_.model_repositories,
          .control = ControlOf(config_),
          .loader = LoaderOptions(),
          .max_queue_bytes = config_.max_queue_bytes,
          .required_models = config_.required_models,
          .placement = {.pin = config_.pin, .transform_workers = config_.transform_workers},
          .plans = plans},
      hardware,
      ModelRepository::Context{.clock = &Clock::Real(),
                               .timer = &timer_,
                               .metrics = &registry_,
                               .preparers = transforms_.get(),
                               .on_change = [this] {
                                 if (health_ != nullptr) health_->Poke();
                               }});
}

absl::Status ServerApp::CheckModels() const {
  std::set<std::string> missing(config_.load_models.begin(), config_.load_models.end());
  const bool named_only = config_.model_control == "explicit" && missing.erase("*") == 0;
  const std::set<std::string> wanted = missing;
  std::vector<std::string> problems;
  for (const ModelRepository::IndexEntry& entry : repository_->Index()) {
    missing.erase(entry.name);
    if (named_only && wanted.count(entry.name) == 0) continue;
    if (entry.state == ModelState::kReady) continue;
    problems.push_back(absl::StrCat("model '", entry.name, "'",
                                    entry.version.empty() ? "" : " version ", entry.version, ": ",
                                    entry.reason));
  }
  for (const std::string& name : missing) {
    problems.push_back(absl::StrCat("model '", name, "': no repository has it"));
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

ModelLoader::Options ServerApp::LoaderOptions() const {
  return {.worker_program = WorkerProgram(config_),
          .max_message_bytes = static_cast<size_t>(config_.max_message_bytes),
          .load_timeout = config_.load_timeout,
          .unhealthy_after = config_.unhealthy_after,
          .sandbox = config_.sandbox};
}

void ServerApp::TuneAtStart(const Hardware& hardware, const MeasuredPlans::Options& plans) {
  const absl::StatusOr<std::vector<ModelDirectory>> models = repository_->Unmeasured();
  if (!models.ok() || models->empty()) return;  // Where it can't be read, Start() says so.
  LogInfo("tuning ",
          absl::StrJoin(*models, ", ",
                        [](std::string* out, const ModelDirectory& model) {
                          absl::StrAppend(out, model.name);
                        }),
          " for at most ", absl::FormatDuration(config_.tune_at_start),
          ", since no plan has them for this machine");
  ModelLoader::Options loader = LoaderOptions();
  loader.log_moves = false;
  absl::StatusOr<std::vector<std::string>> written = std::vector<std::string>();
  RepositoryTuner tuner(
      {.objective = {},
       .measurer = {.loader = std::move(loader), .placement = {.pin = config_.pin}},
       // At once: a start that is given up isn't in vain.
       .found = [&](const TuningReport& report) { written = WritePlans(report, plans.file); }},
      hardware, plans.machine, Clock::Real(), timer_);
  const TuningReport report = tuner.Tune(*models, Clock::Real().Now() + config_.tune_at_start);
  for (const TunedVersion& each : report.models) {
    if (each.status.ok()) continue;
    LogWarning("model '", each.model, "' version ", each.version.number,
               " was not tuned: ", std::string(each.status.message()));
  }
  repository_->AddMeasured(PlanOf(report).models);
  if (!written.ok()) {
    LogWarning("the plan is kept in memory until the server ends: ",
               std::string(written.status().message()));
    return;
  }
  for (const std::string& path : *written) LogInfo("wrote ", path);
}

absl::Status ServerApp::BuildListeners(const std::string& libtorch_version, int cpu_slots) {
  metrics_ = std::make_unique<ServerMetrics>(BuildVersions{.millrace = MILLRACE_VERSION,
                                                           .grpc = GrpcVersion(),
                                                           .libtorch = libtorch_version,
                                                           .commit = std::string(BuildCommit())},
                                             static_cast<size_t>(config_.stream_names));
  MILLRACE_ASSIGN_OR_RETURN(
      http_,
      HttpServer::Create({.host = config_.http_host, .port = config_.http_port, .events = {}},
                         {.metrics = [this] { return registry_.Render(); },
                          .live = [] { return true; },
                          .ready = [this] { return readiness(); },
                          .checks = [this] { return checks(); },
                          .status = [this] { return status(); }}));
  LogInfo("HTTP listens on ", config_.http_host, ":", http_->port());
  MILLRACE_ASSIGN_OR_RETURN(tracer_,
                            RequestTracer::Create({.trace_file = config_.trace_file,
                                                   .trace_sample = config_.trace_sample,
                                                   .trace_file_bytes = config_.trace_file_bytes,
                                                   .access_log_sample = config_.access_log},
                                                  Clock::Real()));
  MILLRACE_RETURN_IF_ERROR(BuildRpc(cpu_slots));
  health_ = std::make_unique<HealthMonitor>(HealthMonitor::Context{
      .clock = &Clock::Real(),
      .repository = repository_.get(),
      .server_readiness = [this] { return readiness(); },
      .tell = [this](const std::string& name,
                     const absl::Status& readiness) { ShowHealth(name, readiness); }});
  report_ = std::make_unique<StatusReport>(
      StatusReport::Context{.config = &config_,
                            .version = MILLRACE_VERSION,
                            .repository = repository_.get(),
                            .rpc = rpc_.get(),
                            .transforms = transforms_.get(),
                            .readiness = [this] { return readiness(); }});
  shown_report_ = report_.get();
  WarnOfExposure();
  return absl::OkStatus();
}

absl::Status ServerApp::OpenCredentials() {
  MILLRACE_ASSIGN_OR_RETURN(
      credentials_, CredentialsStore::Create({.certificate_file = config_.tls_cert,
                                              .key_file = config_.tls_key,
                                              .client_authority_file = config_.tls_client_ca,
                                              .token_file = config_.token_file},
                                             Clock::Real()));
  return absl::OkStatus();
}

absl::Status ServerApp::BuildRpc(int cpu_slots) {
  // The guard takes two more of each connection.
  const int descriptors = RaiseDescriptorLimit() / (AnyIsGuarded(config_.grpc_listen) ? 2 : 1);
  MILLRACE_RETURN_IF_ERROR(OpenCredentials());
  door_ = Door{.clock = &Clock::Real(),
               .credentials = credentials_.get(),
               .allowed_names = config_.tls_allowed_sans,
               .unix = {.mode = config_.unix_mode, .allowed = config_.unix_allow_uids}};
  const ControlService::Options control = {.version = MILLRACE_VERSION,
                                           .ready = [this] { return readiness(); }};
  MILLRACE_ASSIGN_OR_RETURN(
      rpc_, RpcServer::Create(
                {.listen = {.addresses = config_.grpc_listen,
                            .limits = {.most = static_cast<size_t>(
                                           MostConnections(config_.max_connections, descriptors)),
                                       .most_per_peer =
                                           static_cast<size_t>(config_.max_connections_per_peer)}},
                 .reflection = config_.reflection == "all",
                 .channelz = config_.channelz,
                 .io_threads = IoThreads(config_.io_threads, cpu_slots),
                 .max_message_bytes = config_.max_message_bytes,
                 .grpc_memory_bytes = static_cast<size_t>(config_.grpc_memory_bytes),
                 .streams = {.max_streams = static_cast<size_t>(config_.max_streams),
                             .default_window = config_.stream_window,
                             .max_window = config_.max_stream_window,
                             .max_bytes = static_cast<size_t>(config_.max_stream_bytes),
                             .connection_age = config_.max_connection_age > absl::ZeroDuration()
                                                   ? config_.max_connection_age
                                                   : absl::InfiniteDuration(),
                             .age_grace = config_.max_connection_age_grace},
                 .load_reports = config_.load_reports,
                 .control = control},
                {.clock = &Clock::Real(),
                 .timer = &timer_,
                 .repository = repository_.get(),
                 .metrics = metrics_.get(),
                 .door = &*door_,
                 .tracer = tracer_.get()}));
  for (const std::string& address : rpc_->addresses()) LogInfo("gRPC listens on ", address);
  if (!config_.health_listen.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(probes_, HealthServer::Create(config_.health_listen, *door_));
    for (const std::string& address : probes_->addresses()) LogInfo("probes ask ", address);
  }
  if (config_.admin_listen.empty()) return absl::OkStatus();
  MILLRACE_ASSIGN_OR_RETURN(admin_, AdminServer::Create({.listen = config_.admin_listen,
                                                         .drain = [] { kill(getpid(), SIGTERM); },
                                                         .reflection = config_.reflection != "off",
                                                         .channelz = config_.channelz,
                                                         .control = control},
                                                        *repository_, *door_));
  for (const std::string& address : admin_->addresses()) LogInfo("operators call ", address);
  return absl::OkStatus();
}

// Once, whatever is open.
void ServerApp::WarnOfExposure() const {
  const std::vector<std::string>& exposed = rpc_->listeners().exposed();
  if (exposed.empty()) return;
  LogWarning("gRPC at ", absl::StrJoin(exposed, ", "),
             " can be reached from other machines and has no TLS: whoever is on the way reads and "
             "changes what goes over it",
             credentials_->demands_tokens() ? ", and the tokens" : "",
             "; give --tls-cert and --tls-key, or let something in front of it see to that");
}

void ServerApp::ShowMetrics(bool gpus) {
  resources_ = std::make_unique<ResourceMetrics>(
      ResourceMetrics::Options{.gpus = gpus, .triton = config_.triton_metrics}, Clock::Real(),
      registry_, repository_->places());
  if (config_.triton_metrics) registry_.ShowTritonNames();
  registry_.AddSource([this] { return resources_->Collect(); });
  registry_.AddSource([this] {
    if (const auto certificate = credentials_->certificate()) {
      metrics_->SetTlsCertificateExpiry(certificate->not_after);
    }
    return metrics_->Collect();
  });
  registry_.AddSource([this] {
    const MemoryBudget& memory = repository_->memory();
    return std::vector<Sample>{{&kQueueBytes, {}, static_cast<double>(memory.taken())},
                               {&kQueueBytesLimit, {}, static_cast<double>(memory.limit())}};
  });
  registry_.AddSource([this] { return AccessSamples(rpc_->listeners()); });
  registry_.AddSource([this] {
    return std::vector<Sample>{
        {&kTransformWorkers, {}, static_cast<double>(transforms_->limit())},
        {&kTransformBusyTotal, {}, absl::ToDoubleSeconds(transforms_->busy())},
        {&kBatchCores, {}, static_cast<double>(repository_->places().slots())},
        {&kCpuBudget, {}, repository_->places().budget().cores()},
        {&kTraceDroppedTotal, {}, static_cast<double>(tracer_->dropped())},
        {&kLogDroppedTotal, {}, static_cast<double>(DroppedLogLines())}};
  });
}

absl::Status ServerApp::readiness() const {
  if (draining_) return absl::UnavailableError("the server is shutting down");
  if (!loaded_) return absl::UnavailableError("models are being loaded");
  return repository_->Readiness();
}

std::vector<std::pair<std::string, absl::Status>> ServerApp::checks() const {
  std::vector<std::pair<std::string, absl::Status>> checks = {
      {"models are loaded", loaded_ ? absl::OkStatus() : absl::UnavailableError("not yet")},
      {"requests are welcome",
       draining_ ? absl::UnavailableError("the server is shutting down") : absl::OkStatus()}};
  for (const ModelRepository::IndexEntry& entry : repository_->Index()) {
    if (entry.state == ModelState::kReady) continue;
    checks.emplace_back(
        absl::StrCat("model '", entry.name, "' version '", entry.version, "'"),
        absl::UnavailableError(absl::StrCat(NameOf(entry.state), ", ", entry.reason)));
  }
  for (const auto& model : repository_->Loaded()) {
    checks.emplace_back(
        absl::StrCat("model '", model->metrics().model(), "' version '", model->metrics().version(),
                     "'", model->is_optional() ? " (optional)" : ""),
        model->readiness());
  }
  return checks;
}

std::string ServerApp::status() const {
  const StatusReport* const report = shown_report_;
  return report == nullptr ? "{}" : report->Json();
}

void ServerApp::MindManager(const absl::Status& told) {
  if (told.ok() || manager_is_deaf_.exchange(true)) return;
  LogWarning(std::string(told.message()));
}

void ServerApp::ShowHealth(const std::string& name, const absl::Status& state) {
  const auto show = [&](const std::string& service) {
    rpc_->SetHealth(service, state.ok());
    if (probes_ != nullptr) probes_->health().SetStatus(service, state.ok());
  };
  show(name);
  if (!name.empty()) return;
  show(kServiceName);
  // From here: while the monitor comes by once a second, locks are free and models are looked
  // after.
  if (manager_.has_watchdog()) MindManager(manager_.Tell("WATCHDOG=1"));
  if (!loaded_ || draining_ || shown_ready_ == state.ok()) return;
  shown_ready_ = state.ok();
  if (state.ok()) {
    LogInfo("ready");
    MindManager(manager_.Tell("READY=1\nSTATUS=serving"));
    announced_ = true;
  } else {
    LogWarning("not ready: ", std::string(state.message()));
    MindManager(manager_.Tell(
        absl::StrCat("STATUS=not ready: ", absl::StrReplaceAll(state.message(), {{"\n", " "}}))));
  }
}

void ServerApp::Reload(const absl::StatusOr<LogLevel>& log_level) {
  if (announced_) MindManager(manager_.TellReloading());
  std::vector<std::string> read;
  std::vector<std::string> kept;
  const LogLevel level = log_level.value_or(log_level_);
  if (log_level.ok()) {
    read.emplace_back("the log level");
  } else {
    kept.emplace_back(log_level.status().message());
  }
  const absl::Status credentials = credentials_->Reread();
  if (!credentials.ok()) {
    kept.emplace_back(credentials.message());
  } else {
    if (credentials_->uses_tls()) read.emplace_back("certificates");
    if (credentials_->demands_tokens()) read.emplace_back("tokens");
  }
  if (repository_->LookAgain()) read.emplace_back("the model repository");
  SetLogLevel(std::min(level, log_level_));  // This line is for both who want more and less.
  const std::string line = absl::StrCat("read again, as SIGHUP demands: ",
                                        read.empty() ? "nothing" : absl::StrJoin(read, ", "));
  if (kept.empty()) {
    LogInfo(line);
  } else {
    LogWarning(line, "; stays as it was: ", absl::StrJoin(kept, "; "));
  }
  SetLogLevel(level);
  log_level_ = level;
  if (announced_) MindManager(manager_.Tell("READY=1"));
}

bool ServerApp::Stop() {
  draining_ = true;
  MindManager(manager_.Tell("STOPPING=1\nSTATUS=answering what was read"));
  repository_->StopChanges();
  rpc_->DrainHealth();
  if (probes_ != nullptr) probes_->health().Drain();
  LogInfo("not ready any more; serving goes on for ", absl::FormatDuration(config_.drain_delay),
          " until balancers have noticed");
  Clock::Real().SleepFor(config_.drain_delay);
  LogInfo("answering what was read");
  const bool in_time = rpc_->Stop(Clock::Real().Now() + config_.drain_timeout);
  if (!in_time) {
    LogWarning("cancelled what was not answered after ",
               absl::FormatDuration(config_.drain_timeout));
  }
  return in_time;
}

ServerApp::~ServerApp() {
  if (repository_ != nullptr) repository_->StopChanges();
  if (health_ != nullptr) health_->Stop();
  balancer_.reset();
  admin_.reset();
  probes_.reset();
  http_.reset();        // Nobody looks,
  rpc_.reset();         // no request any more,
  repository_.reset();  // then no replica.
}

std::string DefaultWorkerProgram() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "millrace-worker").string();
}

std::string DescribeVersions(const std::string& worker_program) {
  const auto worker =
      DescribeWorker(worker_program.empty() ? DefaultWorkerProgram() : worker_program);
  return absl::StrCat(
      "millrace ", MILLRACE_VERSION, "\ncommit ", BuildCommit(), "\ngRPC ", GrpcVersion(),
      "\nlibtorch ",
      worker.ok() ? worker->libtorch_version : absl::StrCat("unknown: ", worker.status().message()),
      "\n");
}

}  // namespace millrace
