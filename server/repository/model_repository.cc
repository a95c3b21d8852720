// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_repository.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/base/thread.h"
#include "server/repository/warmup_plan.h"

namespace millrace {
namespace {

// Loading is mostly single-threaded; so many models at a time keep a few cores busy.
constexpr size_t kParallelLoads = 4;

std::string NameOf(const std::string& model, int64_t version) {
  return absl::StrCat("model '", model, "' version ", version);
}

// The bytes of the largest request a model may get, where its config fixes them; else 0.
size_t LargestRequestBytes(const ModelSignature& signature) {
  if (signature.fixed_row_shape() == nullptr) return 0;
  size_t bytes = 0;
  for (const size_t row : signature.fixed_row_shape()->row_bytes) bytes += row;
  return bytes * static_cast<size_t>(std::max<int64_t>(1, signature.max_batch_size()));
}

// An AOTInductor package is compiled for one kind of device. Where the config leaves the kind open
// that is the CPU; a package for GPUs says KIND_GPU.
std::vector<InstanceGroup> GroupsOf(const ModelSettings& settings, EngineKind engine) {
  std::vector<InstanceGroup> groups = settings.instance_groups;
  if (engine != EngineKind::kAotInductor) return groups;
  if (groups.empty()) groups.emplace_back();
  for (InstanceGroup& group : groups) {
    if (group.kind == DeviceKind::kAuto) group.kind = DeviceKind::kCpu;
  }
  return groups;
}

}  // namespace

ModelRepository::ModelRepository(Options options, Hardware hardware, Context context)
    : options_(std::move(options)),
      hardware_(std::move(hardware)),
      context_(context),
      memory_(options_.max_queue_bytes) {}

ModelRepository::~ModelRepository() = default;

// ---- Loading ----

absl::Status ModelRepository::Load() {
  MILLRACE_ASSIGN_OR_RETURN(std::vector<ModelDirectory> directories,
                            ScanRepositories(options_.directories));
  {
    MutexLock lock(mutex_);
    for (ModelDirectory& directory : directories) {
      Model& model = models_[directory.name];
      for (const ModelVersion& version : directory.versions) {
        Version& entry = model.versions[version.number];
        entry.on_disk = version;
        if (!version.status.ok()) entry.status = version.status;
      }
      if (!directory.status.ok()) {
        LogError("model '", directory.name, "': ", std::string(directory.status.message()));
      }
      model.directory = std::move(directory);
    }
  }
  const std::vector<Planned> planned = Plan();
  std::atomic<size_t> next{0};
  std::vector<std::unique_ptr<Thread>> loaders;
  for (size_t i = 0; i < std::min(kParallelLoads, planned.size()); ++i) {
    loaders.push_back(std::make_unique<Thread>("loader", [&] {
      for (size_t index; (index = next.fetch_add(1)) < planned.size();) {
        LoadVersion(planned[index]);
      }
    }));
  }
  return absl::OkStatus();  // When the loaders have been joined.
}

std::vector<ModelRepository::Planned> ModelRepository::Plan() {
  MutexLock lock(mutex_);
  std::vector<ModelPlacementConfig> configs;
  for (const auto& [name, model] : models_) {
    for (const auto& [number, version] : model.versions) {
      if (!model.directory.settings || !version.on_disk.status.ok()) continue;
      configs.push_back({.model = name,
                         .version = number,
                         .engine = EngineName(version.on_disk.engine),
                         .groups = GroupsOf(*model.directory.settings, version.on_disk.engine),
                         .intra_op_threads = model.directory.settings->intra_op_threads,
                         .range = model.directory.settings->replica_range});
    }
  }
  const PlacementPlan plan = PlanPlacement(hardware_, configs, Measurements(), options_.placement);
  leases_ = std::make_unique<CoreLeases>(plan.running_slots);
  for (const absl::string_view line : absl::StrSplit(FormatPlan(plan), '\n', absl::SkipEmpty())) {
    LogInfo(line);
  }
  for (const std::string& warning : plan.warnings) LogWarning(warning);
  std::vector<Planned> planned;
  for (const ModelPlan& model : plan.models) {
    if (model.status.ok()) {
      planned.push_back({model.model, model.version, model.replicas, model.spares});
    } else {
      models_[model.model].versions[model.version].status = model.status;
      LogError(NameOf(model.model, model.version), ": ", std::string(model.status.message()));
    }
  }
  return planned;
}

void ModelRepository::LoadVersion(const Planned& planned) {
  std::optional<ModelSettings> settings;
  ModelVersion on_disk;
  {
    MutexLock lock(mutex_);
    settings = models_[planned.name].directory.settings;
    on_disk = models_[planned.name].versions[planned.version].on_disk;
  }
  const absl::Time begin = context_.clock->Now();
  absl::StatusOr<std::shared_ptr<ServedModel>> model = TryLoad(*settings, on_disk, planned);
  if (model.ok()) {
    LogInfo(
        NameOf(planned.name, planned.version), " serves after ",
        absl::FormatDuration(absl::Trunc(context_.clock->Now() - begin, absl::Milliseconds(1))));
  } else {
    LogError(NameOf(planned.name, planned.version),
             " can't be served: ", std::string(model.status().message()));
  }
  MutexLock lock(mutex_);
  Version& version = models_[planned.name].versions[planned.version];
  version.status = model.status();
  if (model.ok()) version.model = *std::move(model);
}

absl::StatusOr<std::shared_ptr<ServedModel>> ModelRepository::TryLoad(const ModelSettings& settings,
                                                                      const ModelVersion& on_disk,
                                                                      const Planned& where) {
  MILLRACE_ASSIGN_OR_RETURN(UniqueFd file, OpenModelFile(on_disk));
  const size_t largest = LargestRequestBytes(settings.SignatureOf(on_disk.number));
  if (largest > options_.max_message_bytes) {
    LogWarning(NameOf(settings.name, on_disk.number), ": its largest request has ", largest,
               " bytes of input, but messages may have ", options_.max_message_bytes,
               "; raise --max-message-bytes to serve such requests");
  }
  ReplicaPool::Options replicas;
  replicas.worker_program = options_.worker_program;
  replicas.model_file = std::move(file);
  replicas.optimize = !settings.disable_optimized_execution;
  replicas.inference_mode = settings.inference_mode;
  replicas.inter_op_threads = settings.inter_op_threads.value_or(1);
  replicas.warmup = PlanWarmup(settings);
  replicas.replicas = where.replicas;
  replicas.start = static_cast<int>(where.replicas.size());
  replicas.replicas.insert(replicas.replicas.end(), where.spares.begin(), where.spares.end());
  if (settings.replica_range) {
    replicas.scaling = {.least = settings.replica_range->least,
                        .most = static_cast<int>(replicas.replicas.size())};
  }
  replicas.most_request_bytes = options_.max_message_bytes;
  replicas.load_timeout = options_.load_timeout;
  replicas.execution_limit = settings.execution_limit;
  replicas.memory_limit_bytes = settings.memory_limit_bytes;
  replicas.sandbox = options_.sandbox;
  if (replicas.warmup.empty()) {
    LogInfo(NameOf(settings.name, on_disk.number),
            ": warm-up is skipped, since the config leaves dims open (-1) and declares no "
            "model_warmup; the first request of each shape will be slower");
  }
  auto metrics = std::make_shared<ModelMetrics>(settings.name, absl::StrCat(on_disk.number),
                                                settings.max_batch_size, *context_.clock);
  MILLRACE_ASSIGN_OR_RETURN(auto model, ServedModel::Load(settings, on_disk.number, on_disk.engine,
                                                          std::move(replicas), metrics,
                                                          {.clock = context_.clock,
                                                           .timer = context_.timer,
                                                           .leases = leases_.get(),
                                                           .memory = &memory_,
                                                           .metrics = nullptr}));
  context_.metrics->AddModel(metrics);
  return model;
}

// ---- Finding ----

absl::StatusOr<const ModelRepository::Model*> ModelRepository::FindModel(
    const std::string& name) const {
  const auto model = models_.find(name);
  if (model == models_.end()) {
    return absl::NotFoundError(absl::StrCat("unknown model '", name.substr(0, 128),
                                            "'; RepositoryIndex lists the ", models_.size(),
                                            " that there are"));
  }
  return &model->second;
}

absl::StatusOr<std::shared_ptr<ServedModel>> ModelRepository::Find(
    const std::string& name, const std::string& version) const {
  MutexLock lock(mutex_);
  MILLRACE_ASSIGN_OR_RETURN(const Model* const model, FindModel(name));
  const auto unavailable = [&](const absl::Status& why) {
    return absl::UnavailableError(
        absl::StrCat("model '", name, "' can't be served: ", why.message()));
  };
  if (!model->directory.status.ok()) return unavailable(model->directory.status);
  if (version.empty()) {
    for (auto entry = model->versions.rbegin(); entry != model->versions.rend(); ++entry) {
      if (entry->second.model != nullptr) return entry->second.model;
    }
    if (model->versions.empty()) return unavailable(absl::UnavailableError("it has no version"));
    return unavailable(model->versions.rbegin()->second.status);
  }
  int64_t number = 0;
  const bool numeric = absl::SimpleAtoi(version, &number);
  const auto entry = numeric ? model->versions.find(number) : model->versions.end();
  if (entry == model->versions.end()) {
    return absl::NotFoundError(
        absl::StrCat("model '", name, "' has no version '", version.substr(0, 64), "'"));
  }
  if (entry->second.model == nullptr) return unavailable(entry->second.status);
  return entry->second.model;
}

std::vector<ModelRepository::IndexEntry> ModelRepository::Index() const {
  MutexLock lock(mutex_);
  std::vector<IndexEntry> index;
  for (const auto& [name, model] : models_) {
    if (!model.directory.status.ok() || model.versions.empty()) {
      index.push_back({name, "", "UNAVAILABLE",
                       model.directory.status.ok()
                           ? "it has no version"
                           : std::string(model.directory.status.message())});
      continue;
    }
    for (const auto& [number, version] : model.versions) {
      const absl::Status state = version.model ? version.model->readiness() : version.status;
      const bool loading = !version.model && state.message() == "is being loaded";
      index.push_back({name, absl::StrCat(number),
                       state.ok() ? "READY" : (loading ? "LOADING" : "UNAVAILABLE"),
                       std::string(state.message())});
    }
  }
  return index;
}

absl::StatusOr<std::vector<std::string>> ModelRepository::Versions(const std::string& name) const {
  MutexLock lock(mutex_);
  MILLRACE_ASSIGN_OR_RETURN(const Model* const model, FindModel(name));
  std::vector<std::string> versions;
  for (const auto& [number, version] : model->versions) {
    if (version.model != nullptr) versions.push_back(absl::StrCat(number));
  }
  return versions;
}

std::vector<std::shared_ptr<ServedModel>> ModelRepository::Loaded() const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<ServedModel>> loaded;
  for (const auto& [name, model] : models_) {
    for (const auto& [number, version] : model.versions) {
      if (version.model != nullptr) loaded.push_back(version.model);
    }
  }
  return loaded;
}

std::vector<std::string> ModelRepository::Names() const {
  MutexLock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, model] : models_) names.push_back(name);
  return names;
}

absl::Status ModelRepository::Readiness() const {
  for (const auto& model : Loaded()) {
    if (const absl::Status status = model->readiness(); !status.ok()) {
      return absl::UnavailableError(absl::StrCat("model '", model->signature().model_name(),
                                                 "' has no replica: ", status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace millrace
