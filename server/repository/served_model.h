// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

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
// Thread-safe.
class ServedModel {
 public:
  // `replicas.signature` and `replicas.dispatch` are taken from the settings. Blocks until the
  // replicas serve. What `context` points to outlives the model.
  static absl::StatusOr<std::shared_ptr<ServedModel>> Load(const ModelSettings& settings,
                                                           int64_t version, EngineKind engine,
                                                           ReplicaPool::Options replicas,
                                                           std::shared_ptr<ModelMetrics> metrics,
                                                           ReplicaPool::Context context);
  ~ServedModel();

  const ModelSignature& signature() const { return *signature_; }
  const inference::ModelConfig& config() const { return config_; }
  const ModelMetrics& metrics() const { return *metrics_; }
  const char* platform() const { return PlatformName(engine_); }
  // See ReplicaPool.
  absl::Status readiness() const { return pool_->readiness(); }
  absl::Time unready_from() const { return pool_->unready_from(); }
  // Whether the server is ready without it.
  bool is_optional() const { return settings_.readiness == Readiness::kOptional; }
  ReplicaPool& replicas() const { return *pool_; }

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

  void ShowGauges(int64_t queue_limit, int64_t bytes_limit);

  const ModelSettings settings_;
  const std::shared_ptr<const ModelSignature> signature_;
  const inference::ModelConfig config_;
  const EngineKind engine_;
  const std::shared_ptr<ModelMetrics> metrics_;
  Clock& clock_;
  std::unique_ptr<ReplicaPool> pool_;
};

}  // namespace millrace
