// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/served_model.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "server/base/status.h"

namespace millrace {
namespace {

// The policies of the priority levels, with limits where the configuration gives none: deep enough
// for four batches per replica to wait, so that a replica never idles while there is work, and
// shallow enough that a wait stays short.
std::vector<QueuePolicy> BoundedPolicies(const ModelSettings& settings, size_t replicas) {
  std::vector<QueuePolicy> policies = settings.queue_policies;
  for (QueuePolicy& policy : policies) {
    if (policy.max_rows > 0) continue;
    policy.max_rows =
        std::max<int64_t>(128, 4 * settings.max_batch_size * static_cast<int64_t>(replicas));
  }
  return policies;
}

int64_t RowsOf(const std::vector<QueuePolicy>& policies) {
  int64_t rows = 0;
  for (const QueuePolicy& policy : policies) rows += policy.max_rows;
  return rows;
}

}  // namespace

absl::StatusOr<std::shared_ptr<ServedModel>> ServedModel::Load(
    const ModelSettings& settings, int64_t version, EngineKind engine,
    ReplicaPool::Options replicas, std::shared_ptr<ModelMetrics> metrics,
    ReplicaPool::Context context) {
  auto signature = std::make_shared<const ModelSignature>(settings.SignatureOf(version));
  std::vector<QueuePolicy> policies = BoundedPolicies(settings, replicas.replicas.size());
  const int64_t queue_limit = RowsOf(policies);
  replicas.signature = signature;
  replicas.engine = engine;
  replicas.dispatch = {.max_queue_rows = queue_limit,
                       .policy = {.preferred_sizes = settings.preferred_batch_sizes,
                                  .max_queue_delay = settings.max_queue_delay},
                       .levels = std::move(policies),
                       .default_level = settings.default_level};
  context.metrics = metrics.get();
  std::shared_ptr<ServedModel> model(
      new ServedModel(settings, engine, std::move(signature), std::move(metrics), *context.clock));
  MILLRACE_ASSIGN_OR_RETURN(model->pool_, ReplicaPool::Create(std::move(replicas), context));
  model->ShowGauges(queue_limit);
  return model;
}

ServedModel::~ServedModel() { metrics_->ClearGauges(); }

void ServedModel::ShowGauges(int64_t queue_limit) {
  metrics_->SetGauges([this, queue_limit] {
    const Dispatcher::Gauges gauges = pool_->dispatcher().gauges();
    return ModelGauges{.queue_depth = gauges.queued_rows,
                       .queue_limit = queue_limit,
                       .oldest_queued_age = gauges.oldest_age,
                       .in_flight = gauges.in_flight,
                       .ready_replicas = pool_->ready_replicas(),
                       .busy_for = pool_->busy_for()};
  });
}

void ServedModel::Submit(Request request, Responder responder, std::shared_ptr<const Caller> caller,
                         Terms terms) {
  std::string id = request.id;
  const bool wants_timings = request.wants_timings;
  const int level = settings_.LevelOf(request.priority);
  const std::optional<absl::Duration> timeout = request.timeout;
  if (timeout) terms.deadline = std::min(terms.deadline, terms.arrival + *timeout);
  absl::StatusOr<CheckedRequest> checked = signature_->Check(std::move(request));
  if (!checked.ok()) {
    metrics_->RecordRejection(Rejection::kInvalid);
    RequestRecord record;
    record.code = static_cast<int>(checked.status().code());
    record.total = clock_.Now() - terms.arrival;
    metrics_->RecordRequest(record);
    Response response = Response::Error(checked.status());
    response.model_name = signature_->model_name();
    response.model_version = signature_->version();
    response.id = std::move(id);
    return responder.Respond(std::move(response));
  }
  auto pending = std::make_shared<PendingRequest>(*std::move(checked), std::move(responder),
                                                  std::move(caller));
  pending->id = std::move(id);
  pending->wants_timings = wants_timings;
  pending->arrival = terms.arrival;
  pending->deadline = terms.deadline;
  pending->timeout = timeout;
  pending->level = level;
  pending->overflow = pending->flow().overflow().value_or(settings_.overflow);
  pool_->dispatcher().Submit(std::move(pending));
}

}  // namespace millrace
