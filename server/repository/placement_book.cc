// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/placement_book.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_split.h"
#include "server/base/log.h"

namespace millrace {

PlacementBook::PlacementBook(Hardware hardware, PlacementOptions options, CoreLeases& leases)
    : hardware_(std::move(hardware)), options_(options), leases_(leases) {}

std::vector<absl::StatusOr<std::shared_ptr<const PlacementClaim>>> PlacementBook::Place(
    absl::Span<const ModelPlacementConfig> models, const Measurements& measurements,
    const std::set<const PlacementClaim*>& leaving) {
  PlacementPlan plan = PlanPlacement(hardware_, models, measurements, options_, Placed(leaving));
  for (const absl::string_view line : absl::StrSplit(FormatPlan(plan), '\n', absl::SkipEmpty())) {
    LogInfo(line);
  }
  for (const std::string& warning : plan.warnings) LogWarning(warning);
  std::vector<absl::StatusOr<std::shared_ptr<const PlacementClaim>>> claims;
  for (ModelPlan& model : plan.models) {
    if (model.status.ok()) {
      claims.emplace_back(Enter(std::make_unique<PlacementClaim>(
          PlacementClaim{.replicas = std::move(model.replicas),
                         .spares = std::move(model.spares),
                         .explicit_slots = model.explicit_slots})));
    } else {
      claims.emplace_back(model.status);
    }
  }
  AdjustLeases();
  return claims;
}

std::vector<ReplicaPlacement> PlacementBook::Placed(
    const std::set<const PlacementClaim*>& leaving) {
  MutexLock lock(mutex_);
  std::vector<ReplicaPlacement> placed;
  for (const PlacementClaim* const claim : claims_) {
    if (leaving.count(claim) > 0) continue;
    placed.insert(placed.end(), claim->replicas.begin(), claim->replicas.end());
  }
  return placed;
}

void PlacementBook::SetAside(int cores) {
  {
    MutexLock lock(mutex_);
    set_aside_ = cores;
  }
  AdjustLeases();
}

std::vector<int> PlacementBook::PlaceTransformWorkers(int workers) {
  return millrace::PlaceTransformWorkers(hardware_, workers, options_, Placed({}));
}

std::shared_ptr<const PlacementClaim> PlacementBook::Enter(std::unique_ptr<PlacementClaim> claim) {
  MutexLock lock(mutex_);
  claims_.insert(claim.get());
  return std::shared_ptr<const PlacementClaim>(claim.release(), [this](const PlacementClaim* last) {
    Strike(last);
    delete last;
  });
}

void PlacementBook::Strike(const PlacementClaim* claim) {
  {
    MutexLock lock(mutex_);
    claims_.erase(claim);
  }
  AdjustLeases();
}

void PlacementBook::AdjustLeases() {
  {
    MutexLock lock(mutex_);  // Until it is set: the last one to set it knows of all claims.
    int slots = hardware_.cpu.slots() - set_aside_;
    for (const PlacementClaim* const claim : claims_) {
      if (claim->explicit_slots > hardware_.cpu.slots()) {
        slots = std::max(slots, claim->explicit_slots);
      }
      for (const auto* const places : {&claim->replicas, &claim->spares}) {
        for (const ReplicaPlacement& each : *places) slots = std::max(slots, each.slots());
      }
    }
    leases_.SetSlots(slots);
  }
  leases_.WakeFirst();
}

}  // namespace millrace
