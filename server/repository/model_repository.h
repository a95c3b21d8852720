// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/sandbox_mode.h"
#include "server/base/timer.h"
#include "server/dispatch/core_leases.h"
#include "server/hardware/hardware.h"
#include "server/metrics/metrics_registry.h"
#include "server/placement/placement.h"
#include "server/repository/model_directory.h"
#include "server/repository/served_model.h"

namespace millrace {

// The models that the server offers: read from disk, placed on this machine's cores and GPUs,
// loaded, and found by name and version. Thread-safe.
class ModelRepository {
 public:
  struct Options {
    std::vector<std::string> directories;
    std::string worker_program;
    size_t max_message_bytes = 64 << 20;         // Of a request on the wire.
    int64_t max_queue_bytes = int64_t{1} << 30;  // Of payloads that are held, over all models.
    absl::Duration load_timeout = absl::Minutes(10);
    SandboxMode sandbox = SandboxMode::kOn;
    PlacementOptions placement;
  };
  // All of it outlives the repository.
  struct Context {
    Clock* clock;
    Timer* timer;
    MetricsRegistry* metrics;
  };

  ModelRepository(Options options, Hardware hardware, Context context);
  ~ModelRepository();

  // Scans the directories, prints the placement plan to the log, and loads every model. Blocks
  // until each is loaded or refused; a model that can't be served is listed with the reason and
  // hinders no other. An error where a directory can't be read. Call once.
  absl::Status Load() ABSL_LOCKS_EXCLUDED(mutex_);

  // The model version that serves `version` of `name`; an empty version means the newest that is
  // loaded. NOT_FOUND for a model or version that doesn't exist, UNAVAILABLE with the reason for
  // one that isn't loaded.
  absl::StatusOr<std::shared_ptr<ServedModel>> Find(const std::string& name,
                                                    const std::string& version) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Payload bytes that the requests of all models hold, and how many they may hold.
  const MemoryBudget& memory() const { return memory_; }

  // A line of RepositoryIndex.
  struct IndexEntry {
    std::string name;
    std::string version;  // Empty where the model as a whole is refused.
    std::string state;    // READY, UNAVAILABLE or LOADING.
    std::string reason;
  };
  std::vector<IndexEntry> Index() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The versions of `name` that are loaded, ascending. NOT_FOUND for an unknown model.
  absl::StatusOr<std::vector<std::string>> Versions(const std::string& name) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Every loaded model version, by name and version.
  std::vector<std::shared_ptr<ServedModel>> Loaded() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The names of all models, loaded or not.
  std::vector<std::string> Names() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Why the server isn't ready: a model that was loaded has no replica. OK otherwise.
  absl::Status Readiness() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Version {
    ModelVersion on_disk;
    absl::Status status = absl::UnavailableError("is being loaded");
    std::shared_ptr<ServedModel> model;
  };
  struct Model {
    ModelDirectory directory;
    std::map<int64_t, Version> versions;
  };

  // Which version of which model a plan is for.
  struct Planned {
    std::string name;
    int64_t version;
    std::vector<ReplicaPlacement> replicas;
    std::vector<ReplicaPlacement> spares;
  };

  std::vector<Planned> Plan() ABSL_LOCKS_EXCLUDED(mutex_);
  void LoadVersion(const Planned& planned) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<ServedModel>> TryLoad(const ModelSettings& settings,
                                                       const ModelVersion& on_disk,
                                                       const Planned& where);
  absl::StatusOr<const Model*> FindModel(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const Hardware hardware_;
  const Context context_;
  MemoryBudget memory_;
  std::unique_ptr<CoreLeases> leases_;

  mutable Mutex mutex_;
  std::map<std::string, Model> models_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
