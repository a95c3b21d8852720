// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/hardware/budget_watcher.h"
#include "server/placement/core_split.h"
#include "server/repository/model_repository.h"
#include "server/transform/transform_stage.h"

namespace millrace {

// Looks once a second at the CPU budget, and has everything planned anew where it has changed; and
// at what rows cost in the transform stage and on the replicas, and shares the budget's cores
// between the two accordingly: see SplitCores(). Thread-safe.
class CoreBalancer {
 public:
  // All of it outlives the balancer.
  struct Context {
    Clock* clock;
    ModelRepository* repository;
    TransformStage* transforms;
    bool fixed;  // All transform workers may always work, and batches take all slots.
  };

  explicit CoreBalancer(const Context& context);

  // Ends the thread.
  ~CoreBalancer();

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void Look();
  // How the cores are shared until something is measured: each stage may use all.
  CoreSplit Whole() const;
  // What rows cost of every model that serves, and how many have run since the last look.
  std::vector<StageCost> TakeCosts();
  // `costs` are what it was decided by, for the log.
  void Apply(const CoreSplit& split, absl::Span<const StageCost> costs);

  const Context context_;
  // On the thread alone:
  BudgetWatcher watcher_;
  int slots_;  // Of the CPU budget.
  CoreSplit split_;
  std::vector<int> transform_cpus_;
  absl::Time looked_;
  absl::Duration busy_;                         // Of the transform stage, when it was looked.
  std::map<const ServedModel*, int64_t> rows_;  // That had run then.

  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Thread thread_;  // Last: it uses all of the above.
};

}  // namespace millrace
