// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_repository.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/replica/model_inspection.h"

namespace millrace {
namespace {

using Mode = ModelControl::Mode;

// Loading is mostly single-threaded; so many models at a time keep a few cores busy.
constexpr int kParallelLoads = 4;
// How long the replicas of a model may take to follow a new plan. A replica that is in the midst of
// a batch leaves after it.
constexpr absl::Duration kMoveTimeout = absl::Minutes(1);

std::string NameOf(const LoadTask& task) {
  return absl::StrCat("model '", task.model, "' version ", task.version.number);
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

// Whether all of a model's replicas run on CPUs, on a machine with or without GPUs.
bool RunsOnCpus(const ModelSettings& settings, EngineKind engine, bool has_gpus) {
  const std::vector<InstanceGroup> groups = GroupsOf(settings, engine);
  if (groups.empty()) return !has_gpus;
  return std::all_of(groups.begin(), groups.end(), [&](const InstanceGroup& group) {
    return group.kind == DeviceKind::kCpu || (group.kind == DeviceKind::kAuto && !has_gpus);
  });
}

// What the configuration says of the mode, else what was measured, else the plain one.
ExecutionMode ModeOf(const ModelSettings& settings, EngineKind engine,
                     const std::optional<ExecutionMode>& measured) {
  ExecutionMode mode = measured.value_or(ExecutionMode());
  mode.engine = engine;
  mode.bfloat16 = settings.execution.bfloat16.value_or(mode.bfloat16);
  mode.channels_last = settings.execution.channels_last.value_or(mode.channels_last);
  mode.wait = settings.execution.wait.value_or(mode.wait);
  return mode;
}

ModelPlacementConfig PlacementConfigOf(const LoadTask& task) {
  return {.model = task.model,
          .version = task.version.number,
          .engine = NameOf(task.mode),
          .groups = GroupsOf(*task.settings, task.version.engine),
          .intra_op_threads = task.settings->intra_op_threads,
          .bfloat16 = task.mode.bfloat16,
          .range = task.settings->replica_range,
          .has_transform = task.settings->has_transform(),
          .measured = task.measured};
}

absl::Status ShuttingDown() { return absl::UnavailableError("the server is shutting down"); }

// Of a version that is listed: what there is to know beside its state.
std::string ReasonOf(const ModelTable::Model& model, const ModelTable::Version& version) {
  const absl::Status& problem = model.problem.ok() ? version.problem : model.problem;
  if (version.state() != ModelState::kReady) return std::string(problem.message());
  if (problem.ok() && !version.loading) return version.model->note();
  if (version.loading) return "serves, and a newer one is being loaded";
  return absl::StrCat("serves as it was loaded before: ", problem.message());
}

}  // namespace

ModelRepository::ModelRepository(Options options, Hardware hardware, Context context)
    : options_(std::move(options)),
      context_(std::move(context)),
      memory_(options_.max_queue_bytes),
      leases_(hardware.cpu.slots()),
      places_(std::move(hardware), options_.placement, leases_),
      plans_(options_.plans),
      loader_(options_.loader, {.clock = context_.clock,
                                .timer = context_.timer,
                                .leases = &leases_,
                                .memory = &memory_,
                                .preparers = context_.preparers,
                                .on_change = [this] { Tell(); }}),
      inferrer_([this](const ModelVersion& version, int fd, int given_up) {
        return InspectModel({.worker_program = options_.loader.worker_program,
                             .sandbox = options_.loader.sandbox,
                             .timeout = options_.loader.load_timeout,
                             .cancel_events = {loader_.cancel_event(), given_up}},
                            version.engine, version.path, fd);
      }),
      reaper_(std::make_unique<ModelReaper>(*context_.clock, *context_.timer)),
      mover_(std::make_unique<WorkQueue>("mover", 1)),
      loaders_(std::make_unique<WorkQueue>("loader", kParallelLoads)),
      keeper_(std::make_unique<WorkQueue>("keeper", 1)) {}

ModelRepository::~ModelRepository() {
  StopChanges();
  keeper_.reset();
  loaders_.reset();
  mover_.reset();
  {
    MutexLock lock(mutex_);
    table_ = ModelTable();
  }
  reaper_.reset();
}

// ---- What shall be served ----

absl::Status ModelRepository::Start() {
  if (options_.control.mode == Mode::kWatch) {  // Before the scan: nothing is missed in between.
    MILLRACE_ASSIGN_OR_RETURN(
        watcher_,
        ModelWatcher::Start({.repositories = options_.directories,
                             .settle_time = options_.control.settle_time,
                             .poll_interval = options_.control.poll_interval},
                            *context_.clock, [this](const std::vector<std::string>& names) {
                              keeper_->Add([this, names] { Follow(names); });
                            }));
  }
  MILLRACE_ASSIGN_OR_RETURN(std::vector<ModelDirectory> directories, Scan());
  std::erase_if(directories, [this](const ModelDirectory& directory) {
    return !IsLoadedAtStart(directory.name);
  });
  for (const std::string& name : options_.control.load_at_start) {
    const bool there =
        name == "*" || std::any_of(directories.begin(), directories.end(),
                                   [&](const ModelDirectory& each) { return each.name == name; });
    if (!there) {
      LogError("model '", name, "': --load-model names it, but no repository has it");
    }
  }
  Tell();
  DoOnKeeper([&] {
    for (ModelDirectory& directory : directories) inferrer_.Complete(directory);
    Apply(directories, /*again=*/false);
  });
  MutexLock lock(mutex_);
  const auto settled = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::all_of(directories.begin(), directories.end(),
                       [&](const ModelDirectory& directory) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                         return table_.IsSettled(directory.name);
                       });
  };
  while (!settled()) changed_.Wait(mutex_);
  started_ = true;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ModelDirectory>> ModelRepository::Unmeasured() {
  MILLRACE_ASSIGN_OR_RETURN(std::vector<ModelDirectory> directories, Scan());
  Tell();
  std::vector<ModelDirectory> unmeasured;
  DoOnKeeper([&] {
    for (ModelDirectory& directory : directories) {
      if (!IsLoadedAtStart(directory.name)) continue;
      inferrer_.Complete(directory);
      if (!directory.status.ok() || !directory.settings) continue;
      std::erase_if(directory.versions, [&](const ModelVersion& version) {
        return !version.status.ok() || plans_.Knows(*directory.settings, version);
      });
      if (!directory.versions.empty()) unmeasured.push_back(std::move(directory));
    }
  });
  return unmeasured;
}

absl::StatusOr<std::vector<ModelDirectory>> ModelRepository::Scan() {
  MILLRACE_ASSIGN_OR_RETURN(std::vector<ModelDirectory> directories,
                            ScanRepositories(options_.directories));
  std::set<std::string> there;
  MutexLock lock(mutex_);
  for (const ModelDirectory& directory : directories) {
    there.insert(directory.name);
    table_.Add(directory, IsLoadedAtStart(directory.name)
                              ? absl::UnavailableError("the server starts, and is yet to load it")
                              : absl::UnavailableError("not loaded; RepositoryModelLoad loads it"));
  }
  scanned_.swap(there);
  for (const std::string& name : there) {  // What an earlier scan has found.
    const auto model = table_.models().find(name);
    const bool gone = scanned_.count(name) == 0 && model != table_.models().end();
    if (gone && model->second.versions.empty()) table_.Remove(name);
  }
  return directories;
}

bool ModelRepository::IsLoadedAtStart(const std::string& name) const {
  const std::vector<std::string>& names = options_.control.load_at_start;
  return options_.control.mode != Mode::kExplicit ||
         std::any_of(names.begin(), names.end(),
                     [&](const std::string& each) { return each == name || each == "*"; });
}

void ModelRepository::DoOnKeeper(const std::function<void()>& task) {
  bool done = false;
  keeper_->Add([&] {
    task();
    MutexLock lock(mutex_);
    done = true;
    changed_.NotifyAll();
  });
  MutexLock lock(mutex_);
  while (!done) changed_.Wait(mutex_);
}

absl::Status ModelRepository::CheckControl() const {
  switch (options_.control.mode) {
    case Mode::kExplicit:
      return absl::OkStatus();
    case Mode::kNone:
      return absl::FailedPreconditionError(
          "models are loaded when the server starts (--model-control none); start it with "
          "--model-control explicit to load and unload them by calls, or watch to have it follow "
          "the repository");
    case Mode::kWatch:
      return absl::FailedPreconditionError(
          "the server follows what is in the repository (--model-control watch); change that, or "
          "start it with --model-control explicit");
  }
  return absl::OkStatus();
}

void ModelRepository::LoadModel(const std::string& name, std::optional<std::string> config,
                                Done done, std::shared_ptr<const UniqueFd> given_up) {
  if (const absl::Status status = CheckControl(); !status.ok()) return done(status);
  keeper_->Add([this, name, config = std::move(config), done = std::move(done),
                given_up = std::move(given_up)]() mutable {
    LoadNow(name, config, std::move(done), given_up->get());
  });
}

void ModelRepository::UnloadModel(const std::string& name, Done done) {
  if (const absl::Status status = CheckControl(); !status.ok()) return done(status);
  keeper_->Add(
      [this, name, done = std::move(done)]() mutable { UnloadNow(name, std::move(done)); });
}

void ModelRepository::LoadNow(const std::string& name, const std::optional<std::string>& config,
                              Done done, int given_up) {
  absl::StatusOr<ModelDirectory> directory = FindModelDirectory(options_.directories, name, config);
  if (!directory.ok()) return done(directory.status());
  inferrer_.Complete(*directory, given_up);
  // A configuration that makes no sense is the caller's fault, and says nothing of the model; nor
  // does an inspection that was given up.
  const bool nothing_new =
      absl::IsCancelled(directory->status) || (config && !directory->status.ok());
  bool refused;
  {
    MutexLock lock(mutex_);
    refused = stopping_;
    if (!refused && !nothing_new) waiting_.emplace(name, std::move(done));
  }
  if (refused) return done(ShuttingDown());
  if (nothing_new) return done(directory->status);
  Apply({*directory}, /*again=*/true);
  AnswerWaiting(name);
}

void ModelRepository::UnloadNow(const std::string& name, Done done) {
  ModelTable::Released released;
  bool known;
  {
    MutexLock lock(mutex_);
    known = table_.models().count(name) > 0;
    released = table_.Unload(name);
  }
  if (!known) {
    return done(absl::NotFoundError(absl::StrCat("unknown model '", name.substr(0, 128), "'")));
  }
  LogInfo("model '", name, "' is unloaded");
  Retire(released);
  Tell();
  AnswerWaiting(name);
  done(absl::OkStatus());
}

void ModelRepository::Follow(const std::vector<std::string>& names) {
  std::vector<ModelDirectory> there;
  for (const std::string& name : names) {
    absl::StatusOr<ModelDirectory> directory = FindModelDirectory(options_.directories, name);
    if (directory.ok()) {
      LogInfo("model '", name, "' has changed in the repository");
      inferrer_.Complete(*directory);
      there.push_back(*std::move(directory));
      continue;
    }
    ModelTable::Released released;
    {
      MutexLock lock(mutex_);
      if (stopping_ || table_.models().count(name) == 0) continue;
      released = table_.Remove(name);
    }
    LogInfo("model '", name, "' is unloaded: it is no longer in the repository");
    Retire(released);
    Tell();
  }
  Apply(there, /*again=*/false);
}

void ModelRepository::Apply(const std::vector<ModelDirectory>& directories, bool again) {
  std::vector<LoadTask> tasks;
  ModelTable::Released released;
  for (const ModelDirectory& directory : directories) {
    if (!directory.status.ok() && !absl::IsCancelled(directory.status)) {
      LogError("model '", directory.name, "': ", std::string(directory.status.message()));
    }
    const auto settings =
        directory.settings ? std::make_shared<const ModelSettings>(*directory.settings) : nullptr;
    MutexLock lock(mutex_);
    for (const ModelTable::Begun& begun : table_.Refresh(directory, again, released)) {
      const auto on_disk = std::find_if(
          directory.versions.begin(), directory.versions.end(),
          [&](const ModelVersion& version) { return version.number == begun.version; });
      tasks.push_back({.model = directory.name,
                       .version = *on_disk,
                       .mode = {},
                       .measured = std::nullopt,
                       .settings = settings,
                       .place = nullptr,
                       .plan = {},
                       .attempt = begun.attempt});
    }
  }
  Retire(released);
  if (tasks.empty()) return Tell();
  const double cores = Measure(tasks);
  std::vector<ModelPlacementConfig> configs;
  for (const LoadTask& task : tasks) configs.push_back(PlacementConfigOf(task));
  auto places = places_.Place(configs, cores, PlacesLeftBy(tasks));
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (!places[i].ok()) {
      Finish(tasks[i], places[i].status());
      continue;
    }
    tasks[i].place = *std::move(places[i]);
    loaders_->Add([this, task = std::move(tasks[i])]() mutable { Load(task); });
  }
  Tell();
}

double ModelRepository::Measure(std::vector<LoadTask>& tasks) {
  // Of a budget that has changed since the start nothing was measured.
  const double cores = places_.budget().cores();
  const bool known = std::abs(cores - plans_.machine().cores) < 0.01;
  for (LoadTask& task : tasks) {
    ModelVersion& version = task.version;
    std::optional<TunedModel> tuned;
    if (known && RunsOnCpus(*task.settings, version.engine, !plans_.machine().gpus.empty())) {
      tuned = plans_.Find(*task.settings, version);
    }
    std::optional<ExecutionMode> mode;
    if (tuned) {
      mode = tuned->best.mode;
      task.measured = tuned->best;
    }
    if (mode) version = VersionOn(version, mode->engine).value_or(version);
    task.mode = ModeOf(*task.settings, version.engine, mode);
  }
  return cores;
}

std::set<const PlacementClaim*> ModelRepository::PlacesLeftBy(const std::vector<LoadTask>& tasks) {
  std::set<const PlacementClaim*> leaving;
  MutexLock lock(mutex_);
  for (const LoadTask& task : tasks) {
    const auto place = place_of_.find(table_.Predecessor(task.model, task.version.number).get());
    if (place != place_of_.end()) leaving.insert(place->second);
  }
  return leaving;
}

// ---- Loading ----

void ModelRepository::Load(LoadTask& task) {
  task.plan = places_.PlanOf(*task.place);
  const absl::StatusOr<std::shared_ptr<ServedModel>> loaded = TryLoad(task);
  Finish(task, loaded);
  if (!loaded.ok()) return;
  // The plan may have changed since. Replan() finds the model by now, so this isn't older than what
  // it brings; both go by the mover, so that neither overtakes the other.
  mover_->Add([this, weak = std::weak_ptr<ServedModel>(*loaded)] {
    if (const std::shared_ptr<ServedModel> model = weak.lock()) MoveToPlan(model);
  });
}

absl::StatusOr<std::shared_ptr<ServedModel>> ModelRepository::TryLoad(const LoadTask& task) {
  std::shared_ptr<ServedModel> predecessor;
  bool background;  // Others serve, and need the cores more.
  {
    MutexLock lock(mutex_);
    background = started_;
    if (stopping_) return ShuttingDown();
    if (!table_.IsCurrent(task.model, task.version.number, task.attempt)) {
      return absl::CancelledError("a newer load takes its place");
    }
    predecessor = table_.Predecessor(task.model, task.version.number);
  }
  if (predecessor != nullptr) MILLRACE_RETURN_IF_ERROR(MakeRoom(task, predecessor));
  const bool same =
      predecessor != nullptr && predecessor->signature().version_number() == task.version.number;
  const absl::Time begin = context_.clock->Now();
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<ServedModel> model,
                            loader_.Load(task, same ? predecessor.get() : nullptr, background));
  LogInfo(NameOf(task), predecessor != nullptr ? " takes over after " : " serves after ",
          absl::FormatDuration(absl::Trunc(context_.clock->Now() - begin, absl::Milliseconds(1))));
  const ServedModel* const raw = model.get();
  {
    MutexLock lock(mutex_);
    place_of_[raw] = task.place.get();
  }
  return reaper_->Share(std::move(model), [this, task, raw] { Ended(task, raw); });
}

absl::Status ModelRepository::MakeRoom(const LoadTask& task,
                                       std::shared_ptr<ServedModel>& predecessor) {
  int64_t needed = 0;  // As much as the old one has.
  for (const pid_t pid : predecessor->pids()) needed += pid > 0 ? OwnMemoryBytes("/", pid) : 0;
  const int64_t available = options_.available_memory();
  if (needed <= available) return absl::OkStatus();
  const std::string lack = absl::StrCat("beside the load that serves it needs about ", needed >> 20,
                                        " MiB of memory, and ", available >> 20, " MiB are left");
  if (!task.settings->swaps_in_place_if_needed) {
    return absl::ResourceExhaustedError(
        absl::StrCat(lack,
                     "; give the server more, or set millrace.lifecycle.swap to "
                     "IN_PLACE_IF_NEEDED to have the old one end first"));
  }
  LogWarning(NameOf(task), ": ", lack, "; so that one ends first");
  ModelTable::Released released;
  {
    MutexLock lock(mutex_);
    released = table_.Suspend(task.model, task.version.number);
  }
  Retire(released);
  Tell();
  const ServedModel* const old = predecessor.get();
  predecessor.reset();
  MutexLock lock(mutex_);
  while (place_of_.count(old) > 0 && !stopping_) changed_.Wait(mutex_);
  return absl::OkStatus();
}

void ModelRepository::Finish(const LoadTask& task,
                             const absl::StatusOr<std::shared_ptr<ServedModel>>& loaded) {
  ModelTable::Released released;
  bool counts;
  {
    MutexLock lock(mutex_);
    counts = table_.Finish(task.model, task.version.number, task.attempt, loaded, released);
  }
  if (counts && loaded.ok()) context_.metrics->AddModel((*loaded)->shared_metrics());
  if (counts && !loaded.ok() && !absl::IsCancelled(loaded.status())) {
    LogError(NameOf(task), " can't be served: ", std::string(loaded.status().message()));
  }
  Retire(released);
  Tell();
  AnswerWaiting(task.model);
}

void ModelRepository::Ended(const LoadTask& task, const ServedModel* model) {
  MutexLock lock(mutex_);
  place_of_.erase(model);
  table_.Ended(task.model, task.version.number);
  changed_.NotifyAll();
}

// ---- Moving ----

void ModelRepository::Replan(const CpuBudget& budget) {
  places_.Replan(budget);
  mover_->Add([this] {
    for (const std::shared_ptr<ServedModel>& model : Loaded()) MoveToPlan(model);
  });
}

void ModelRepository::MoveToPlan(const std::shared_ptr<ServedModel>& model) {
  const PlacementClaim* place;  // Lives as long as the model.
  {
    MutexLock lock(mutex_);
    const auto found = place_of_.find(model.get());
    if (stopping_ || found == place_of_.end()) return;
    place = found->second;
    moving_ = model;
  }
  const absl::Status moved = model->Follow(places_.PlanOf(*place), kMoveTimeout);
  {
    MutexLock lock(mutex_);
    moving_.reset();
  }
  if (moved.ok() || absl::IsCancelled(moved)) return;
  LogWarning("model '", model->signature().model_name(), "' version ", model->signature().version(),
             " doesn't run as planned: ", std::string(moved.message()),
             "; the operators' call Restart moves its replicas once that is mended");
}

void ModelRepository::AnswerWaiting(const std::string& name) {
  std::vector<Done> answered;
  absl::Status outcome;
  {
    MutexLock lock(mutex_);
    changed_.NotifyAll();
    if (!table_.IsSettled(name)) return;
    outcome = table_.Outcome(name);
    const auto [first, last] = waiting_.equal_range(name);
    for (auto waiting = first; waiting != last; ++waiting) {
      answered.push_back(std::move(waiting->second));
    }
    waiting_.erase(first, last);
  }
  for (Done& done : answered) done(outcome);
}

void ModelRepository::Retire(ModelTable::Released& released) {
  for (const std::shared_ptr<ServedModel>& model : released) reaper_->Retire(model);
  released.clear();
}

void ModelRepository::Tell() {
  if (context_.on_change) context_.on_change();
}

void ModelRepository::StopChanges() {
  std::multimap<std::string, Done> waiting;
  std::shared_ptr<ServedModel> moving;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    moving = moving_;
    waiting.swap(waiting_);
    changed_.NotifyAll();
  }
  watcher_.reset();
  loader_.Cancel();
  if (moving != nullptr) moving->StopMoves();
  for (auto& [name, done] : waiting) done(ShuttingDown());
}

bool ModelRepository::LookAgain() {
  if (watcher_ == nullptr) return false;
  watcher_->Poke();
  return true;
}

// ---- Finding ----

absl::StatusOr<std::shared_ptr<ServedModel>> ModelRepository::Find(
    const std::string& name, const std::string& version) const {
  MutexLock lock(mutex_);
  return table_.Find(name, version);
}

std::vector<ModelRepository::IndexEntry> ModelRepository::Index() const {
  MutexLock lock(mutex_);
  std::vector<IndexEntry> index;
  for (const auto& [name, model] : table_.models()) {
    if (model.versions.empty()) {
      index.push_back(
          {name, "", ModelState::kUnavailable,
           model.problem.ok() ? "it has no version" : std::string(model.problem.message())});
    }
    for (const auto& [number, version] : model.versions) {
      const absl::Status alive = version.model ? version.model->readiness() : absl::OkStatus();
      if (alive.ok()) {
        index.push_back({name, absl::StrCat(number), version.state(), ReasonOf(model, version)});
      } else {
        index.push_back(
            {name, absl::StrCat(number), ModelState::kUnavailable, std::string(alive.message())});
      }
    }
  }
  return index;
}

absl::StatusOr<std::vector<std::string>> ModelRepository::Versions(const std::string& name) const {
  MutexLock lock(mutex_);
  const auto model = table_.models().find(name);
  if (model == table_.models().end()) return table_.Find(name, "").status();
  std::vector<std::string> versions;
  for (const auto& [number, version] : model->second.versions) {
    if (version.model != nullptr) versions.push_back(absl::StrCat(number));
  }
  return versions;
}

std::vector<std::shared_ptr<ServedModel>> ModelRepository::Loaded() const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<ServedModel>> loaded;
  for (const auto& [name, model] : table_.models()) {
    for (const auto& [number, version] : model.versions) {
      if (version.model != nullptr) loaded.push_back(version.model);
    }
  }
  return loaded;
}

std::vector<std::string> ModelRepository::Names() const {
  MutexLock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, model] : table_.models()) names.push_back(name);
  return names;
}

absl::Status ModelRepository::Readiness() const {
  const auto unready = [](const std::string& name, const absl::Status& why) {
    return absl::UnavailableError(absl::StrCat("model '", name, "': ", why.message()));
  };
  for (const std::string& name : RequiredModels()) {
    const auto model = Find(name, "");
    if (!model.ok()) return model.status();
  }
  for (const auto& model : Loaded()) {
    if (model->is_optional()) continue;
    const absl::Status status = model->readiness();
    if (!status.ok()) return unready(model->signature().model_name(), status);
  }
  return absl::OkStatus();
}

std::vector<std::string> ModelRepository::RequiredModels() const {
  std::vector<std::string> names = options_.required_models;
  MutexLock lock(mutex_);
  for (const auto& [name, model] : table_.models()) {
    if (model.required) names.push_back(name);
  }
  return names;
}

}  // namespace millrace
