// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/placement_book.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_split.h"
#include "server/base/log.h"

namespace millrace {
namespace {

void LogPlan(const PlacementPlan& plan) {
  for (const absl::string_view line : absl::StrSplit(FormatPlan(plan), '\n', absl::SkipEmpty())) {
    LogInfo(line);
  }
  for (const std::string& warning : plan.warnings) LogWarning(warning);
}

}  // namespace

PlacementBook::PlacementBook(Hardware hardware, PlacementOptions options, CoreLeases& leases)
    : options_(options), leases_(leases), hardware_(std::move(hardware)) {}

std::vector<absl::StatusOr<std::shared_ptr<const PlacementClaim>>> PlacementBook::Place(
    absl::Span<const ModelPlacementConfig> models, double measured_cores,
    const std::set<const PlacementClaim*>& leaving) {
  PlacementPlan plan;
  std::vector<absl::StatusOr<std::shared_ptr<const PlacementClaim>>> claims;
  {
    MutexLock lock(mutex_);
    std::vector<ModelPlacementConfig> planned;
    for (const ModelPlacementConfig& each : models) planned.push_back(ToPlan(each, measured_cores));
    plan = PlanPlacement(hardware_, planned, options_, Placed(leaving));
    for (size_t i = 0; i < models.size(); ++i) {
      const ModelPlan& model = plan.models[i];
      if (model.status.ok()) {
        claims.emplace_back(Enter(models[i], measured_cores, model));
      } else {
        claims.emplace_back(model.status);
      }
    }
    AdjustLeases();
  }
  leases_.WakeFirst();
  LogPlan(plan);
  return claims;
}

void PlacementBook::Replan(const CpuBudget& budget) {
  CpuBudget before;
  PlacementPlan plan;
  bool differs = false;
  {
    MutexLock lock(mutex_);
    before = std::exchange(hardware_.cpu, budget);
    std::vector<ModelPlacementConfig> models;
    for (const PlacementClaim* const claim : claims_) {
      models.push_back(ToPlan(claim->config_, claim->measured_cores_));
    }
    plan = PlanPlacement(hardware_, models, options_);
    for (size_t i = 0; i < claims_.size(); ++i) {
      if (!plan.models[i].status.ok()) continue;
      differs |= plan.models[i].places() != claims_[i]->plan_.places();
      claims_[i]->plan_ = plan.models[i];
    }
    set_aside_ = 0;
    AdjustLeases();
  }
  leases_.WakeFirst();
  LogInfo("the CPU budget has changed from ", DescribeBudget(before), " to ",
          DescribeBudget(budget));
  if (differs || budget.slots() != before.slots()) LogPlan(plan);
}

ModelPlan PlacementBook::PlanOf(const PlacementClaim& claim) const {
  MutexLock lock(mutex_);
  return claim.plan_;
}

std::vector<ReplicaPlacement> PlacementBook::Placed(
    const std::set<const PlacementClaim*>& leaving) const {
  std::vector<ReplicaPlacement> placed;
  for (const PlacementClaim* const claim : claims_) {
    if (leaving.count(claim) > 0) continue;
    const std::vector<ReplicaPlacement>& replicas = claim->plan_.replicas;
    placed.insert(placed.end(), replicas.begin(), replicas.end());
  }
  return placed;
}

void PlacementBook::SetAside(int cores) {
  {
    MutexLock lock(mutex_);
    set_aside_ = cores;
    AdjustLeases();
  }
  leases_.WakeFirst();
}

CpuBudget PlacementBook::budget() const {
  MutexLock lock(mutex_);
  return hardware_.cpu;
}

std::vector<int> PlacementBook::PlaceTransformWorkers(int workers) const {
  MutexLock lock(mutex_);
  return millrace::PlaceTransformWorkers(hardware_, workers, options_, Placed({}));
}

ModelPlacementConfig PlacementBook::ToPlan(ModelPlacementConfig config,
                                           double measured_cores) const {
  if (measured_cores != hardware_.cpu.cores()) config.measured.reset();
  return config;
}

std::shared_ptr<const PlacementClaim> PlacementBook::Enter(const ModelPlacementConfig& config,
                                                           double measured_cores, ModelPlan plan) {
  claims_.push_back(new PlacementClaim(config, std::move(plan)));
  claims_.back()->measured_cores_ = measured_cores;
  return std::shared_ptr<const PlacementClaim>(claims_.back(), [this](const PlacementClaim* last) {
    Strike(last);
    delete last;
  });
}

void PlacementBook::Strike(const PlacementClaim* claim) {
  {
    MutexLock lock(mutex_);
    std::erase(claims_, claim);
    AdjustLeases();
  }
  leases_.WakeFirst();
}

void PlacementBook::AdjustLeases() {
  // Set under the lock: the last one to set it knows of all claims.
  int slots = std::max(1, hardware_.cpu.slots() - set_aside_);
  for (const PlacementClaim* const claim : claims_) {
    const ModelPlan& plan = claim->plan_;
    if (plan.explicit_slots > hardware_.cpu.slots()) slots = std::max(slots, plan.explicit_slots);
    for (const ReplicaPlacement& each : plan.places()) slots = std::max(slots, each.slots());
  }
  leases_.SetSlots(slots);
}

}  // namespace millrace
