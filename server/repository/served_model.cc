// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/served_model.h"

#include <algorithm>
#include <utility>

#include "server/base/status.h"

namespace millrace {
namespace {

// Deep enough for four batches per replica to wait, so that a replica never idles while there is
// work, and shallow enough that a wait stays short.
int64_t QueueLimit(const ModelSettings& settings, size_t replicas) {
  if (settings.max_queue_size > 0) return settings.max_queue_size;
  return std::max<int64_t>(128, 4 * settings.max_batch_size * static_cast<int64_t>(replicas));
}

}  // namespace

absl::StatusOr<std::shared_ptr<ServedModel>> ServedModel::Load(
    const ModelSettings& settings, int64_t version, EngineKind engine,
    ReplicaPool::Options replicas, std::shared_ptr<ModelMetrics> metrics,
    ReplicaPool::Context context) {
  auto signature = std::make_shared<const ModelSignature>(settings.SignatureOf(version));
  const int64_t queue_limit = QueueLimit(settings, replicas.replicas.size());
  replicas.signature = signature;
  replicas.engine = engine;
  replicas.dispatch = {.max_queue_rows = queue_limit,
                       .policy = {.preferred_sizes = settings.preferred_batch_sizes,
                                  .max_queue_delay = settings.max_queue_delay}};
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
  if (request.timeout) terms.deadline = std::min(terms.deadline, terms.arrival + *request.timeout);
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
  pending->overflow = pending->flow().overflow().value_or(Overflow::kBlock);
  pool_->dispatcher().Submit(std::move(pending));
}

}  // namespace millrace
