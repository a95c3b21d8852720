// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/base/mutex.h"
#include "server/dispatch/core_leases.h"
#include "server/hardware/hardware.h"
#include "server/placement/placement.h"

namespace millrace {

// A version's place on the machine, taken until it is destroyed; see PlacementBook::PlanOf().
class PlacementClaim {
 private:
  friend class PlacementBook;

  PlacementClaim(ModelPlacementConfig config, ModelPlan plan)
      : config_(std::move(config)), plan_(std::move(plan)) {}

  const ModelPlacementConfig config_;
  ModelPlan plan_;             // Guarded by the book, as what follows.
  double measured_cores_ = 0;  // For a budget of so many it was measured; see Replan().
};

// Knows where the replicas of all models are to run, and finds places for more, without moving
// anybody. Plans them all anew when the CPU budget changes. Keeps `leases` at the slots that the
// placed models need. Thread-safe.
class PlacementBook {
 public:
  PlacementBook(Hardware hardware, PlacementOptions options, CoreLeases& leases);

  // Plans `models` together and writes the plan to the log. One result for each, in their order:
  // see PlanPlacement() for the errors. Each is placed as if `leaving` had gone already: the place
  // of a version is its successor's, and while that is loaded the version has two claims. What was
  // measured of them was for a budget of `measured_cores`, and counts whenever the budget has as
  // many. The claims may outlive neither the book nor the leases.
  std::vector<absl::StatusOr<std::shared_ptr<const PlacementClaim>>> Place(
      absl::Span<const ModelPlacementConfig> models, double measured_cores,
      const std::set<const PlacementClaim*>& leaving) ABSL_LOCKS_EXCLUDED(mutex_);

  // The CPU budget is another. Plans all that is placed as if it were placed now, so that the plan
  // is the one of a server that is started with this budget: what was measured for another budget
  // doesn't count. Sets the leases, of which none are set aside now, and writes to the log what has
  // changed. It is for the caller to move the replicas.
  void Replan(const CpuBudget& budget) ABSL_LOCKS_EXCLUDED(mutex_);

  // Where a version shall run.
  ModelPlan PlanOf(const PlacementClaim& claim) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Leaves so many cores to the transform stage: so much narrower are the leases from now on, but
  // never too narrow for the widest replica, or for what a configuration asks for beyond the
  // budget.
  void SetAside(int cores) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many cores' worth of batches may run at a time.
  int slots() const { return leases_.slots(); }

  // The CPU budget for which all is planned.
  CpuBudget budget() const ABSL_LOCKS_EXCLUDED(mutex_);

  // See the function of that name.
  std::vector<int> PlaceTransformWorkers(int workers) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // With what was measured of it, as far as that counts now.
  ModelPlacementConfig ToPlan(ModelPlacementConfig config, double measured_cores) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<const PlacementClaim> Enter(const ModelPlacementConfig& config,
                                              double measured_cores, ModelPlan plan)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Strike(const PlacementClaim* claim) ABSL_LOCKS_EXCLUDED(mutex_);
  // WakeFirst() is to be called afterwards.
  void AdjustLeases() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Where the replicas run, but for those of `leaving`.
  std::vector<ReplicaPlacement> Placed(const std::set<const PlacementClaim*>& leaving) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const PlacementOptions options_;
  CoreLeases& leases_;
  mutable Mutex mutex_;
  Hardware hardware_ ABSL_GUARDED_BY(mutex_);
  std::vector<PlacementClaim*> claims_ ABSL_GUARDED_BY(mutex_);  // In the order they were made.
  int set_aside_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace millrace
