// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/served_model.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// Rows that a priority level's queue holds where the configuration says nothing: deep enough for
// four batches per replica to wait, so that a replica never idles while there is work, and shallow
// enough that a wait stays short.
int64_t AutomaticRows(const ModelSettings& settings, size_t replicas) {
  return std::max<int64_t>(128, 4 * settings.max_batch_size * static_cast<int64_t>(replicas));
}

// A batch for every replica, besides the one that is staged.
int64_t AutomaticAhead(const ModelSettings& settings, size_t replicas) {
  return std::max<int64_t>(1, settings.max_batch_size) * static_cast<int64_t>(replicas);
}

Dispatcher::Options DispatchOptions(const ModelSettings& settings, size_t replicas,
                                    const ReplicaPool::Context& context) {
  MemoryBudget* const memory = context.memory;
  Dispatcher::Options options;
  options.max_queue_rows = AutomaticRows(settings, replicas);
  options.policy.preferred_sizes = settings.preferred_batch_sizes;
  options.policy.max_queue_delay = settings.max_queue_delay;
  options.policy.hold = settings.hold.value_or(Hold::kReturners);
  options.levels = settings.queue_policies;
  options.starvation_guard = settings.starvation_guard;
  options.overload = {.target = settings.shed_target, .interval = settings.shed_interval};
  options.memory = memory;
  options.preparers = context.preparers;
  options.prepare_ahead = AutomaticAhead(settings, replicas);
  if (settings.max_queue_bytes > 0) {
    options.max_queue_bytes = settings.max_queue_bytes;
  } else if (memory != nullptr) {
    options.max_queue_bytes = memory->limit() / 2;  // So that one model can't take all.
  }
  return options;
}

// "3x224x224"; inputs are separated by ",".
std::string NameOf(const RowShape& shape) {
  return absl::StrJoin(shape.dims, ",", [](std::string* out, const Shape& dims) {
    absl::StrAppend(out, absl::StrJoin(dims, "x"));
  });
}

std::vector<ModelGauges::Cost> CostsOf(const std::vector<CostTable::Entry>& entries) {
  std::vector<ModelGauges::Cost> costs;
  for (const CostTable::Entry& entry : entries) {
    for (const ReplicaKind kind : {ReplicaKind::kCpu, ReplicaKind::kGpu}) {
      const CostModel& model = entry.models[static_cast<size_t>(kind)];
      if (!model.known()) continue;
      costs.push_back({.shape = NameOf(*entry.shape),
                       .replica_kind = kind == ReplicaKind::kCpu ? "cpu" : "gpu",
                       .setup = model.setup(),
                       .per_row = model.per_row(),
                       .deviation = model.deviation()});
    }
  }
  return costs;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(
    const ModelSettings& settings, int64_t version, ReplicaPool::Options replicas,
    std::shared_ptr<ModelMetrics> metrics, ReplicaPool::Context context) {
  auto signature = std::make_shared<const ModelSignature>(settings.SignatureOf(version));
  replicas.signature = signature;
  replicas.dispatch = DispatchOptions(settings, replicas.replicas.size(), context);
  const int64_t bytes_limit = replicas.dispatch.max_queue_bytes;
  context.metrics = metrics.get();
  std::unique_ptr<ServedModel> model(new ServedModel(
      settings, replicas.mode.engine, std::move(signature), std::move(metrics), *context.clock));
  const absl::Time begin = context.clock->Now();
  MILLRACE_ASSIGN_OR_RETURN(model->pool_, ReplicaPool::Create(std::move(replicas), context));
  model->metrics_->SetLoadDuration(context.clock->Now() - begin);
  model->ShowGauges(bytes_limit);
  return model;
}

ServedModel::~ServedModel() { End(); }

void ServedModel::End() {
  metrics_->ClearGauges(gauges_);
  pool_.reset();
}

void ServedModel::ShowGauges(int64_t bytes_limit) {
  gauges_ = metrics_->SetGauges([this, bytes_limit] {
    const auto [gauges, costs] = pool_->dispatcher().glance();
    ReplicaPool::Glance replicas = pool_->glance();
    return ModelGauges{.queue_depth = gauges.queued_rows,
                       .queue_limit = gauges.queue_limit,
                       .oldest_queued_age = gauges.oldest_age,
                       .in_flight = gauges.in_flight,
                       .ready_replicas = replicas.ready,
                       .busy_for = std::move(replicas.busy_for),
                       .parked = gauges.parked,
                       .held_bytes = gauges.held_bytes,
                       .held_bytes_limit = bytes_limit,
                       .predicted_wait = gauges.predicted_wait,
                       .capacity = gauges.capacity,
                       .utilisation = gauges.utilisation,
                       .overloaded = gauges.overloaded,
                       .waiting_requests = gauges.waiting_requests,
                       .waiting_rows = gauges.waiting_rows,
                       .batch_limit = gauges.batch_limit,
                       .replicas = std::move(replicas.replicas),
                       .pids = std::move(replicas.pids),
                       .costs = CostsOf(costs)};
  });
}

absl::Status ServedModel::Follow(const ModelPlan& plan, absl::Duration timeout) {
  std::vector<ReplicaPlacement> places = plan.places();
  pool_->dispatcher().SizeQueue(AutomaticRows(settings_, places.size()),
                                AutomaticAhead(settings_, places.size()));
  return pool_->Move(std::move(places), static_cast<int>(plan.replicas.size()), timeout);
}

void ServedModel::Submit(Request request, Responder responder, std::shared_ptr<const Caller> caller,
                         Terms terms) {
  std::string id = request.id;
  Parameters echoes = std::move(request.echoes);
  const bool wants_timings = request.wants_timings;
  std::shared_ptr<RequestTrace> trace = std::move(request.trace);
  const int level = settings_.LevelOf(request.priority);
  const std::optional<absl::Duration> timeout = request.timeout;
  absl::StatusOr<CheckedRequest> checked = signature_->Check(std::move(request));
  if (!checked.ok()) {
    metrics_->RecordRejection(Rejection::kInvalid);
    RequestRecord record;
    record.code = static_cast<int>(checked.status().code());
    const absl::Time now = clock_.Now();
    record.total = now - terms.arrival;
    metrics_->RecordRequest(record);
    Response response = Response::Error(checked.status());
    response.model_name = signature_->model_name();
    response.model_version = signature_->version();
    response.id = std::move(id);
    response.parameters = std::move(echoes);
    response.trace = std::move(trace);
    response.timings.arrival = terms.arrival;
    response.timings.answered = now;
    return responder.Respond(std::move(response));
  }
  auto pending = std::make_shared<PendingRequest>(*std::move(checked), std::move(responder),
                                                  std::move(caller));
  pending->id = std::move(id);
  pending->echoes = std::move(echoes);
  pending->wants_timings = wants_timings;
  pending->trace = std::move(trace);
  pending->arrival = terms.arrival;
  pending->deadline = terms.deadline;
  pending->timeout = timeout;
  pending->level = level;
  pending->overflow = OverflowOf(pending->flow());
  pending->model = shared_from_this();
  pool_->dispatcher().Submit(std::move(pending));
}

}  // namespace millrace
