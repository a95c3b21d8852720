// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/pool_measurer.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/measuring/candidates.h"
#include "server/measuring/load_driver.h"

namespace millrace {
namespace {

// How long replicas may take to end and to start, which are milliseconds each.
constexpr absl::Duration kMoveTimeout = absl::Minutes(1);

// More rows than any load has under way.
constexpr int64_t kMostRowsThatWait = 1 << 30;

// As it is measured: with the tensors that a transform makes, as many replicas as are asked for,
// and room and time for whatever is sent. What refuses the requests of clients under too high a
// load would have every load of this kind fail.
ModelSettings Measurable(ModelSettings settings) {
  for (TensorSpec& input : settings.inputs) input.transform = nullptr;
  settings.replica_range = std::nullopt;
  settings.queue_policies = {QueuePolicy{.max_rows = kMostRowsThatWait}};
  settings.default_level = 1;
  settings.starvation_guard = absl::InfiniteDuration();
  settings.overflow = Overflow::kBlock;
  settings.shed_target = absl::InfiniteDuration();
  settings.max_queue_bytes = 0;
  return settings;
}

int64_t MostRows(const ModelSettings& settings) {
  return std::max<int64_t>(1, settings.max_batch_size);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PoolMeasurer>> PoolMeasurer::Create(Options options,
                                                                   Hardware hardware,
                                                                   ModelSettings settings,
                                                                   ModelVersion version,
                                                                   Clock& clock, Timer& timer) {
  MILLRACE_ASSIGN_OR_RETURN(
      std::shared_ptr<const RequestSource> source,
      RequestSource::Create(settings, ModelFolderOf(version), MostRows(settings)));
  settings = Measurable(std::move(settings));
  return std::unique_ptr<PoolMeasurer>(new PoolMeasurer(std::move(options), std::move(hardware),
                                                        std::move(settings), std::move(version),
                                                        std::move(source), clock, timer));
}

PoolMeasurer::PoolMeasurer(Options options, Hardware hardware, ModelSettings settings,
                           ModelVersion version, std::shared_ptr<const RequestSource> source,
                           Clock& clock, Timer& timer)
    : options_(std::move(options)),
      hardware_(std::move(hardware)),
      settings_(std::make_shared<const ModelSettings>(std::move(settings))),
      version_(std::move(version)),
      source_(std::move(source)),
      clock_(clock),
      timer_(timer),
      leases_(hardware_.cpu.slots()),
      memory_(std::numeric_limits<int64_t>::max()),
      loader_(options_.loader, {.clock = &clock,
                                .timer = &timer,
                                .leases = &leases_,
                                .memory = &memory_,
                                .preparers = nullptr,
                                .on_change = nullptr}),
      reaper_(clock, timer),
      at_deadline_(timer.Schedule(options_.deadline, [this] { loader_.Cancel(); })) {}

PoolMeasurer::~PoolMeasurer() { timer_.Cancel(at_deadline_); }

absl::StatusOr<Trial> PoolMeasurer::Run(const Candidate& candidate, const Load& load,
                                        absl::Duration length) {
  MILLRACE_ASSIGN_OR_RETURN(ServedModel* const model, Arrange(candidate));
  // Of a model whose rows can't share a batch each is alone.
  const int64_t most = model->replicas().single_rows().empty() ? MostRows(*settings_) : 1;
  const int64_t rows = candidate.most_rows > 0 ? std::min(candidate.most_rows, most) : most;
  model->replicas().dispatcher().LimitRows(rows);
  const int64_t request_rows = load.kind == Load::Kind::kFullBatches ? rows : 1;
  const auto caller = std::make_shared<Caller>(std::make_shared<const Flow>());
  const auto driver = LoadDriver::Create(
      {.load = load, .replicas = candidate.replicas, .rows = request_rows, .length = length},
      clock_,
      [this, model, caller, request_rows](Responder responder) {
        model->Submit(source_->Make(request_rows), std::move(responder), caller,
                      {.arrival = clock_.Now()});
      },
      [model, caller] {
        caller->Cancel();
        model->Cancel(*caller);
      });
  return driver->Run();
}

absl::StatusOr<ServedModel*> PoolMeasurer::Arrange(const Candidate& candidate) {
  MILLRACE_ASSIGN_OR_RETURN(Loaded* const loaded, LoadedFor(candidate));
  MILLRACE_RETURN_IF_ERROR(loaded->status);
  leases_.SetSlots(std::max(hardware_.cpu.slots(), candidate.replicas * candidate.threads));
  leases_.WakeFirst();
  ServedModel* const model = loaded->model.get();
  MILLRACE_ASSIGN_OR_RETURN(ModelPlan plan, Place(candidate));
  if (loaded->places == plan.replicas) return model;
  loaded->places.clear();  // Where it fails, nobody knows where they are.
  MILLRACE_RETURN_IF_ERROR(model->Follow(plan, kMoveTimeout));
  loaded->places = std::move(plan.replicas);
  return model;
}

ExecutionMode PoolMeasurer::ModeOf(const Candidate& candidate) const {
  return candidate.mode.value_or(ExecutionMode{.engine = version_.engine});
}

absl::StatusOr<PoolMeasurer::Loaded*> PoolMeasurer::LoadedFor(const Candidate& candidate) {
  const ExecutionMode mode = ModeOf(candidate);
  for (Loaded& each : loaded_) {
    if (each.mode == mode) return &each;
  }
  MILLRACE_ASSIGN_OR_RETURN(const ModelPlan plan, Place(candidate));
  loaded_.push_back(LoadAs(mode, plan));
  return &loaded_.back();
}

PoolMeasurer::Loaded PoolMeasurer::LoadAs(const ExecutionMode& mode, const ModelPlan& plan) {
  Loaded loaded = {.mode = mode, .status = absl::OkStatus(), .model = nullptr, .places = {}};
  const std::optional<ModelVersion> version = VersionOn(version_, mode.engine);
  if (!version) {
    loaded.status = absl::FailedPreconditionError(
        absl::StrCat("the version has no file for ", EngineName(mode.engine)));
    return loaded;
  }
  LoadTask task = {.model = settings_->name,
                   .version = *version,
                   .mode = mode,
                   .measured = std::nullopt,
                   .settings = settings_,
                   .place = nullptr,
                   .plan = plan};
  task.plan.most_places = static_cast<size_t>(options_.most_replicas);
  absl::StatusOr<std::unique_ptr<ServedModel>> model = loader_.Load(task, nullptr, false);
  if (model.ok()) {
    loaded.model = reaper_.Share(*std::move(model), [] {});
    loaded.places = plan.replicas;
  } else if (absl::IsCancelled(model.status())) {
    loaded.status =
        absl::DeadlineExceededError("the time to measure was over before it was loaded; give more");
  } else {
    loaded.status = model.status();
  }
  return loaded;
}

absl::StatusOr<ModelPlan> PoolMeasurer::Place(const Candidate& candidate) const {
  const ModelPlacementConfig config = {
      .model = settings_->name,
      .version = version_.number,
      .engine = "",
      .groups = {{.kind = DeviceKind::kCpu, .count = candidate.replicas, .gpus = {}}},
      .intra_op_threads = candidate.threads,
      .range = std::nullopt};
  PlacementPlan plan = PlanPlacement(hardware_, {config}, options_.placement);
  ModelPlan& model = plan.models.front();
  MILLRACE_RETURN_IF_ERROR(model.status);
  model.spares.clear();
  return std::move(model);
}

void PoolMeasurer::Keep(absl::Span<const Candidate> candidates, absl::Time deadline) {
  const auto is_needed = [&](const Loaded& loaded) {
    return loaded.model == nullptr ||
           std::any_of(candidates.begin(), candidates.end(),
                       [&](const Candidate& each) { return ModeOf(each) == loaded.mode; });
  };
  std::erase_if(loaded_, [&](const Loaded& each) { return !is_needed(each); });
  // Now, so that loading isn't taken for a part of their runs. Run() tells what went wrong.
  for (const Candidate& each : candidates) {
    if (clock_.Now() >= deadline) return;
    (void)LoadedFor(each);
  }
}

}  // namespace millrace
