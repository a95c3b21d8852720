// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/placement_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <optional>
#include <random>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

Hardware Cpus(int count) {
  Hardware hardware;
  hardware.cpu.cpus.resize(static_cast<size_t>(count));
  std::iota(hardware.cpu.cpus.begin(), hardware.cpu.cpus.end(), 0);
  for (const int cpu : hardware.cpu.cpus) hardware.topology.cpus.push_back({cpu, cpu, 0, 0});
  return hardware;
}

ModelPlacementConfig Model(const std::string& name, std::optional<int> count, int threads = 1) {
  InstanceGroup group;
  group.kind = DeviceKind::kCpu;
  group.count = count;
  return {.model = name,
          .version = 1,
          .engine = "torchscript",
          .groups = {group},
          .intra_op_threads = threads,
          .bfloat16 = false,
          .range = std::nullopt,
          .has_transform = false};
}

class PlacementBookTest : public testing::Test {
 protected:
  std::shared_ptr<const PlacementClaim> Place(const ModelPlacementConfig& model,
                                              const PlacementClaim* leaving = nullptr) {
    return *book_.Place({model}, /*measured_cores=*/4, {leaving}).front();
  }

  std::vector<ReplicaPlacement> ReplicasOf(const std::shared_ptr<const PlacementClaim>& claim) {
    return book_.PlanOf(*claim).replicas;
  }

  CoreLeases leases_{4};
  PlacementBook book_{Cpus(4), {.pin = true}, leases_};
};

TEST_F(PlacementBookTest, LaterModelsGetTheCoresThatOthersLeave) {
  const auto first = Place(Model("a", 2));
  EXPECT_THAT(ReplicasOf(first)[0].cpus, ElementsAre(0));
  EXPECT_THAT(ReplicasOf(first)[1].cpus, ElementsAre(1));
  const auto second = Place(Model("b", 2));
  EXPECT_THAT(ReplicasOf(second)[0].cpus, ElementsAre(2));
  EXPECT_THAT(ReplicasOf(second)[1].cpus, ElementsAre(3));
}

TEST_F(PlacementBookTest, SuccessorGetsThePlaceOfItsPredecessor) {
  const auto other = Place(Model("a", 2));
  const auto old = Place(Model("b", 2));
  EXPECT_EQ(ReplicasOf(Place(Model("b", 2), old.get())), ReplicasOf(old));
}

TEST_F(PlacementBookTest, PlaceIsFreeWhenTheClaimHasGone) {
  auto first = Place(Model("a", 3));
  first.reset();
  EXPECT_THAT(ReplicasOf(Place(Model("b", 1)))[0].cpus, ElementsAre(0));
}

TEST_F(PlacementBookTest, LeasesFollowWhatThePlacedModelsAskFor) {
  auto wide = Place(Model("a", 3, 2));
  EXPECT_EQ(leases_.slots(), 6);
  const auto narrow = Place(Model("b", 1));
  EXPECT_EQ(leases_.slots(), 6);
  wide.reset();
  EXPECT_EQ(leases_.slots(), 4);
}

TEST_F(PlacementBookTest, LeasesLeaveCoresToTheTransformStage) {
  const auto narrow = Place(Model("a", 1));
  book_.SetAside(1);
  EXPECT_EQ(leases_.slots(), 3);
  book_.SetAside(4);
  EXPECT_EQ(leases_.slots(), 1) << "The widest replica always fits.";
  const auto wide = Place(Model("b", 1, 2));
  EXPECT_EQ(leases_.slots(), 2);
  const auto wider_than_the_budget = Place(Model("c", 3, 2));
  EXPECT_EQ(leases_.slots(), 6);
  book_.SetAside(0);
  EXPECT_EQ(leases_.slots(), 6);
}

TEST_F(PlacementBookTest, TransformWorkersAreKeptOffItsReplicas) {
  const auto first = Place(Model("a", 2));
  EXPECT_THAT(book_.PlaceTransformWorkers(2), ElementsAre(2, 3));
  const auto second = Place(Model("b", 1));
  EXPECT_THAT(book_.PlaceTransformWorkers(1), ElementsAre(3));
  EXPECT_THAT(book_.PlaceTransformWorkers(2), ElementsAre(0, 1, 2, 3));
}

TEST_F(PlacementBookTest, LeasesFollowTheBudgetAtOnce) {
  const auto any = Place(Model("a", std::nullopt));
  book_.SetAside(2);
  book_.Replan(Cpus(8).cpu);
  EXPECT_EQ(leases_.slots(), 8) << "What was set aside was of another budget.";
  book_.SetAside(7);
  book_.Replan(Cpus(3).cpu);
  EXPECT_EQ(leases_.slots(), 3);
  book_.SetAside(5);  // By one who doesn't know it yet.
  EXPECT_EQ(leases_.slots(), 1);
}

TEST_F(PlacementBookTest, BudgetNarrowerThanAReplicaLeavesRoomForIt) {
  const auto wide = Place(Model("a", 1, 3));
  book_.Replan(Cpus(1).cpu);
  EXPECT_EQ(leases_.slots(), 3) << "Its threads are the configuration's.";
  book_.Replan(Cpus(4).cpu);
  EXPECT_EQ(leases_.slots(), 4);
}

TEST_F(PlacementBookTest, ModelsGetAsManyReplicasAsTheNewBudgetCarries) {
  const auto any = Place(Model("a", std::nullopt));
  const auto fixed = Place(Model("b", 2));
  EXPECT_THAT(ReplicasOf(any), SizeIs(4));
  book_.Replan(Cpus(1).cpu);
  EXPECT_THAT(ReplicasOf(any), SizeIs(1));
  EXPECT_THAT(ReplicasOf(fixed), SizeIs(2)) << "Its number is the configuration's.";
  book_.Replan(Cpus(8).cpu);
  EXPECT_THAT(ReplicasOf(any), SizeIs(8));
}

// A version that is loaded again has two claims until the new one has taken over.
TEST_F(PlacementBookTest, ClaimsOfOneVersionKeepWhatWasMeasuredForEach) {
  ModelPlacementConfig model = Model("a", std::nullopt);
  model.intra_op_threads.reset();
  model.measured = {.replicas = 1, .threads = 2};
  const auto old = Place(model);
  model.measured = {.replicas = 2, .threads = 1};
  const auto newer = Place(model, old.get());
  model.measured.reset();
  const auto newest = Place(model, newer.get());
  CpuBudget budget = Cpus(8).cpu;
  budget.quota = 4;  // As many cores, so what was measured counts.
  book_.Replan(budget);
  ASSERT_THAT(ReplicasOf(old), SizeIs(1));
  EXPECT_EQ(ReplicasOf(old)[0].threads, 2);
  EXPECT_THAT(ReplicasOf(newer), SizeIs(2));
  EXPECT_THAT(ReplicasOf(newest), SizeIs(4));
  book_.Replan(Cpus(8).cpu);
  for (const auto& claim : {old, newer, newest}) EXPECT_THAT(ReplicasOf(claim), SizeIs(8));
}

TEST_F(PlacementBookTest, WhatWasMeasuredForTheBudgetOfBeforeCountsWhenThatIsBack) {
  ModelPlacementConfig model = Model("a", std::nullopt);
  model.intra_op_threads.reset();
  model.measured = {.replicas = 1, .threads = 2};
  book_.Replan(Cpus(8).cpu);  // While somebody looks up what was measured for 4 cores.
  const auto any = *book_.Place({model}, /*measured_cores=*/4, {}).front();
  EXPECT_THAT(ReplicasOf(any), SizeIs(8));
  book_.Replan(Cpus(4).cpu);
  ASSERT_THAT(ReplicasOf(any), SizeIs(1));
  EXPECT_EQ(ReplicasOf(any)[0].threads, 2);
}

TEST_F(PlacementBookTest, FractionOfACoreIsSeenAndMovesNobody) {
  const auto any = Place(Model("a", std::nullopt));
  const std::vector<ReplicaPlacement> before = ReplicasOf(any);
  CpuBudget budget = Cpus(4).cpu;
  budget.quota = 4.5;
  book_.Replan(budget);
  EXPECT_EQ(book_.budget().quota, 4.5);
  EXPECT_EQ(ReplicasOf(any), before);
}

// Whatever the budget was before, the plan is the one of a server that starts with it.
TEST_F(PlacementBookTest, PlanDependsOnNoBudgetButTheLast) {
  std::mt19937 random(TestSeed());
  const auto number = [&](int least, int most) {
    return std::uniform_int_distribution(least, most)(random);
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<ModelPlacementConfig> models;
    for (int i = number(1, 4); i > 0; --i) {
      models.push_back(Model(std::string(1, static_cast<char>('a' + i)),
                             number(0, 1) == 0 ? std::nullopt : std::optional(number(1, 5)),
                             number(1, 3)));
    }
    Hardware machine = Cpus(16);
    const auto some_budget = [&] {
      CpuBudget budget;
      budget.cpus.clear();
      for (int cpu = 0; cpu < 16; ++cpu) {
        if (number(0, 2) > 0) budget.cpus.push_back(cpu);
      }
      if (budget.cpus.empty()) budget.cpus = {0};
      budget.exclusive = budget.cpus.size() < 16;
      if (number(0, 1) == 0) budget.quota = number(1, 40) / 2.0;
      return budget;
    };
    machine.cpu = some_budget();
    CoreLeases leases(machine.cpu.slots());
    PlacementBook book(machine, {}, leases);
    const auto claims = book.Place(models, 0, {});
    for (int i = number(1, 3); i > 0; --i) {
      machine.cpu = some_budget();
      book.Replan(machine.cpu);
    }
    CoreLeases fresh_leases(machine.cpu.slots());
    PlacementBook fresh(machine, {}, fresh_leases);
    const auto fresh_claims = fresh.Place(models, 0, {});
    for (size_t i = 0; i < models.size(); ++i) {
      const ModelPlan plan = book.PlanOf(**claims[i]);
      EXPECT_EQ(plan.places(), fresh.PlanOf(**fresh_claims[i]).places());
      EXPECT_LE(plan.places().size(), plan.most_places);
    }
    ASSERT_EQ(leases.slots(), fresh_leases.slots());
  }
}

TEST_F(PlacementBookTest, ModelThatCantBePlacedHindersNoOther) {
  const auto places = book_.Place({Model("a", 0), Model("b", 1)}, 0, {});
  EXPECT_TRUE(absl::IsInvalidArgument(places[0].status()));
  EXPECT_TRUE(places[1].ok());
}

}  // namespace
}  // namespace millrace
