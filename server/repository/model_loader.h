// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/timer.h"
#include "server/dispatch/core_leases.h"
#include "server/dispatch/memory_budget.h"
#include "server/inference/execution_mode.h"
#include "server/placement/placement.h"
#include "server/repository/model_directory.h"
#include "server/repository/model_settings.h"
#include "server/repository/placement_book.h"
#include "server/repository/served_model.h"

namespace millrace {

// What is to be loaded, and where.
struct LoadTask {
  std::string model;
  ModelVersion version;
  ExecutionMode mode;
  std::optional<MeasuredBest> measured;
  std::shared_ptr<const ModelSettings> settings;
  std::shared_ptr<const PlacementClaim> place;
  ModelPlan plan;        // Of that place, when the load begins.
  uint64_t attempt = 0;  // See ModelTable.
};

// Makes of a version's file a model that serves: opens it, starts its template, has it loaded,
// warmed and checked, and forks its replicas. Thread-safe.
class ModelLoader {
 public:
  struct Options {
    std::string worker_program;
    size_t max_message_bytes = 64 << 20;
    absl::Duration load_timeout = absl::Minutes(10);
    absl::Duration unhealthy_after = absl::Seconds(2);
    SandboxMode sandbox = SandboxMode::kOn;
    bool log_moves = true;  // See ReplicaPool.
  };
  // All of it outlives the loader and the models.
  struct Context {
    Clock* clock;
    Timer* timer;
    CoreLeases* leases;
    MemoryBudget* memory;
    Preparers* preparers;
    std::function<void()> on_change;  // See ReplicaPool.
  };

  ModelLoader(Options options, Context context);

  // Blocks until the model serves. `predecessor`, the same version loaded before (null: there is
  // none), hands its counters on. `background`: others serve, and need the cores more. FAILED_
  // PRECONDITION where the file changed meanwhile; other errors say why the model can't serve.
  absl::StatusOr<std::unique_ptr<ServedModel>> Load(const LoadTask& task,
                                                    const ServedModel* predecessor,
                                                    bool background);

  // Ends the loads that are going on, and those that begin later, with CANCELLED.
  void Cancel();
  // The event that says so; see ReplicaPool::Options.
  int cancel_event() const { return cancel_event_.get(); }

 private:
  const Options options_;
  const Context context_;
  const UniqueFd cancel_event_;
};

}  // namespace millrace
