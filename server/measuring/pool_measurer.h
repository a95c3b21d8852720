// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/base/timer.h"
#include "server/dispatch/core_leases.h"
#include "server/dispatch/memory_budget.h"
#include "server/hardware/hardware.h"
#include "server/measuring/measurer.h"
#include "server/measuring/request_source.h"
#include "server/repository/model_loader.h"
#include "server/repository/model_reaper.h"
#include "server/repository/served_model.h"

namespace millrace {

// Measures one version of a model as it runs in service: loaded by the same loader, in replicas of
// the same kind, in the same places and under the same leases, with batches from the same
// dispatcher. Only its clients are missing: requests are made in this process, with the tensors
// that a transform would make of pictures.
//
// Each mode that is measured has a template of its own, from which all layouts are forked. A load
// that isn't over at the deadline is given up.
class PoolMeasurer final : public Measurer {
 public:
  struct Options {
    ModelLoader::Options loader;
    PlacementOptions placement;
    int most_replicas = 1;  // Of any candidate.
    absl::Time deadline = absl::InfiniteFuture();
  };

  // `clock` and `timer` outlive it. FAILED_PRECONDITION where it isn't known what requests of this
  // model look like.
  static absl::StatusOr<std::unique_ptr<PoolMeasurer>> Create(Options options, Hardware hardware,
                                                              ModelSettings settings,
                                                              ModelVersion version, Clock& clock,
                                                              Timer& timer);

  // Ends the replicas. Blocks.
  ~PoolMeasurer() override;

  // Measurer.
  absl::StatusOr<Trial> Run(const Candidate& candidate, const Load& load,
                            absl::Duration length) override;
  void Keep(absl::Span<const Candidate> candidates, absl::Time deadline) override;

 private:
  // The model, loaded in one mode.
  struct Loaded {
    ExecutionMode mode;
    absl::Status status;                 // Why it can't be loaded.
    std::shared_ptr<ServedModel> model;  // Null where it isn't.
    std::vector<ReplicaPlacement> places;
  };

  PoolMeasurer(Options options, Hardware hardware, ModelSettings settings, ModelVersion version,
               std::shared_ptr<const RequestSource> source, Clock& clock, Timer& timer);

  // Has the model run as the candidate says.
  absl::StatusOr<ServedModel*> Arrange(const Candidate& candidate);
  ExecutionMode ModeOf(const Candidate& candidate) const;
  // The model in the candidate's mode, loaded where it isn't yet; or that it can't be.
  absl::StatusOr<Loaded*> LoadedFor(const Candidate& candidate);
  Loaded LoadAs(const ExecutionMode& mode, const ModelPlan& plan);
  absl::StatusOr<ModelPlan> Place(const Candidate& candidate) const;

  const Options options_;
  const Hardware hardware_;
  const std::shared_ptr<const ModelSettings> settings_;
  const ModelVersion version_;
  const std::shared_ptr<const RequestSource> source_;
  Clock& clock_;
  Timer& timer_;
  CoreLeases leases_;
  MemoryBudget memory_;
  ModelLoader loader_;
  ModelReaper reaper_;
  Timer::Id at_deadline_;
  std::vector<Loaded> loaded_;  // Last: it uses all of the above.
};

}  // namespace millrace
