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
    absl::Span<const ModelPlacementConfig> models, const std::set<const PlacementClaim*>& leaving) {
  std::vector<ReplicaPlacement> placed;
  {
    MutexLock lock(mutex_);
    for (const PlacementClaim* const claim : claims_) {
      if (leaving.count(claim) > 0) continue;
      placed.insert(placed.end(), claim->replicas.begin(), claim->replicas.end());
    }
  }
  PlacementPlan plan = PlanPlacement(hardware_, models, Measurements(), options_, placed);
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
  int slots = hardware_.cpu.slots();
  {
    MutexLock lock(mutex_);
    for (const PlacementClaim* const claim : claims_)
      slots = std::max(slots, claim->explicit_slots);
  }
  leases_.SetSlots(slots);
}

}  // namespace millrace
