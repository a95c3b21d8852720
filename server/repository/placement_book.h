// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/base/mutex.h"
#include "server/dispatch/core_leases.h"
#include "server/hardware/hardware.h"
#include "server/placement/placement.h"

namespace millrace {

// A version's place on the machine, taken until it is destroyed.
struct PlacementClaim {
  std::vector<ReplicaPlacement> replicas;  // At the start.
  std::vector<ReplicaPlacement> spares;    // Where others may be added.
  int explicit_slots = 0;                  // See ModelPlan.
};

// Knows where the replicas of all models run, and finds places for more, without moving anybody.
// Keeps `leases` at the slots that the placed models need. Thread-safe.
class PlacementBook {
 public:
  PlacementBook(Hardware hardware, PlacementOptions options, CoreLeases& leases);

  // Plans `models` together and writes the plan to the log. `measurements`: of those that were
  // measured. One result for each, in their order:
  // see PlanPlacement() for the errors. Each is placed as if `leaving` had gone already: the place
  // of a version is its successor's. The claims may outlive neither the book nor the leases.
  std::vector<absl::StatusOr<std::shared_ptr<const PlacementClaim>>> Place(
      absl::Span<const ModelPlacementConfig> models, const Measurements& measurements,
      const std::set<const PlacementClaim*>& leaving) ABSL_LOCKS_EXCLUDED(mutex_);

  // Leaves so many cores to the transform stage: so much narrower are the leases from now on, but
  // never too narrow for the widest replica, or for what a configuration asks for beyond the
  // budget.
  void SetAside(int cores) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many cores' worth of batches may run at a time.
  int slots() const { return leases_.slots(); }

  // See the function of that name.
  std::vector<int> PlaceTransformWorkers(int workers) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  std::shared_ptr<const PlacementClaim> Enter(std::unique_ptr<PlacementClaim> claim)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Strike(const PlacementClaim* claim) ABSL_LOCKS_EXCLUDED(mutex_);
  void AdjustLeases() ABSL_LOCKS_EXCLUDED(mutex_);
  // Where the replicas run, but for those of `leaving`.
  std::vector<ReplicaPlacement> Placed(const std::set<const PlacementClaim*>& leaving)
      ABSL_LOCKS_EXCLUDED(mutex_);

  const Hardware hardware_;
  const PlacementOptions options_;
  CoreLeases& leases_;
  Mutex mutex_;
  std::set<const PlacementClaim*> claims_ ABSL_GUARDED_BY(mutex_);
  int set_aside_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace millrace
