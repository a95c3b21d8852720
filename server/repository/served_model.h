// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/model_config.pb.h"
#include "server/dispatch/caller.h"
#include "server/dispatch/dispatcher.h"
#include "server/inference/model_signature.h"
#include "server/inference/request.h"
#include "server/inference/responder.h"
#include "server/metrics/model_metrics.h"
#include "server/replica/replica_pool.h"
#include "server/repository/model_settings.h"

namespace millrace {

// One model version that is loaded: its signature, its config, and the replicas that run it.
// Thread-safe. Whoever has a share of it may submit requests, and each request has a share until it
// is answered: so a model that gives way to a newer one ends when it has finished what it accepted.
class ServedModel : public std::enable_shared_from_this<ServedModel> {
 public:
  // `replicas.signature` and `replicas.dispatch` are taken from the settings. Blocks until the
  // replicas serve. What `context` points to outlives the model.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const ModelSettings& settings,
                                                           int64_t version,
                                                           ReplicaPool::Options replicas,
                                                           std::shared_ptr<ModelMetrics> metrics,
                                                           ReplicaPool::Context context);

  // Ends the replicas; blocks, and must not be called on one of their threads (see ModelReaper).
  ~ServedModel();

  // Ends the replicas, and answers what is left, while others still have shares. Blocks. REQUIRES:
  // nobody calls anything else of this object any more.
  void End();

  const ModelSignature& signature() const { return *signature_; }
  const inference::ModelConfig& config() const { return config_; }
  const ModelMetrics& metrics() const { return *metrics_; }
  // To go on counting where this one does.
  const std::shared_ptr<ModelMetrics>& shared_metrics() const { return metrics_; }
  const char* platform() const { return PlatformName(engine_); }
  // See ReplicaPool.
  absl::Status readiness() const { return pool_->readiness(); }
  absl::Time unready_from() const { return pool_->unready_from(); }
  // Whether the server is ready without it.
  bool is_optional() const { return settings_.readiness == Readiness::kOptional; }
  ReplicaPool& replicas() const { return *pool_; }
  // See Dispatcher.
  StageTimes::Medians stage_times() const { return pool_->dispatcher().stage_times(); }
  // What an operator should know of a model that serves; empty where there is nothing.
  std::string note() const { return pool_->single_rows(); }
  // The processes of the template and the replicas; 0 for one that is just being replaced.
  std::vector<pid_t> pids() const { return pool_->pids(); }

  // Brings the replicas to where a plan has them, and the queue to the room that these need.
  // Blocks; see ReplicaPool::Move() for the errors.
  absl::Status Follow(const ModelPlan& plan, absl::Duration timeout);
  // See ReplicaPool.
  void StopMoves() { pool_->StopMoves(); }

  // What becomes of a flow's requests that find no room: as the flow says, else the configuration.
  Overflow OverflowOf(const Flow& flow) const {
    return flow.overflow().value_or(settings_.overflow);
  }

  // How a request is to be treated.
  struct Terms {
    absl::Time arrival;
    absl::Time deadline = absl::InfiniteFuture();
  };

  // Checks a request against the signature and queues it, or answers it at once. Never blocks; see
  // Dispatcher::Submit().
  void Submit(Request request, Responder responder, std::shared_ptr<const Caller> caller,
              Terms terms);

  // Answers what waits with `status`, and whatever comes: no replica will come that could run it.
  void GiveUp(const absl::Status& status) { pool_->dispatcher().Stop(status); }

  // Drops what waits of a cancelled caller. REQUIRES: caller.cancelled().
  void Cancel(const Caller& caller) { pool_->dispatcher().Cancel(caller); }

 private:
  ServedModel(const ModelSettings& settings, EngineKind engine,
              std::shared_ptr<const ModelSignature> signature,
              std::shared_ptr<ModelMetrics> metrics, Clock& clock)
      : settings_(settings),
        signature_(std::move(signature)),
        config_(settings.ConfigOf(engine)),
        engine_(engine),
        metrics_(std::move(metrics)),
        clock_(clock) {}

  void ShowGauges(int64_t bytes_limit);

  const ModelSettings settings_;
  const std::shared_ptr<const ModelSignature> signature_;
  const inference::ModelConfig config_;
  const EngineKind engine_;
  const std::shared_ptr<ModelMetrics> metrics_;
  Clock& clock_;
  uint64_t gauges_ = 0;  // The source's number in `metrics_`.
  std::unique_ptr<ReplicaPool> pool_;
};

}  // namespace millrace
