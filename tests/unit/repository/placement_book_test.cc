// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/placement_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace millrace {
namespace {

using testing::ElementsAre;

Hardware Cpus(int count) {
  Hardware hardware;
  hardware.cpu.cpus.resize(static_cast<size_t>(count));
  std::iota(hardware.cpu.cpus.begin(), hardware.cpu.cpus.end(), 0);
  return hardware;
}

ModelPlacementConfig Model(const std::string& name, int count, int threads = 1) {
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
    return *book_.Place({model}, Measurements(), {leaving}).front();
  }

  CoreLeases leases_{4};
  PlacementBook book_{Cpus(4), {.pin = true}, leases_};
};

TEST_F(PlacementBookTest, LaterModelsGetTheCoresThatOthersLeave) {
  const auto first = Place(Model("a", 2));
  EXPECT_THAT(first->replicas[0].cpus, ElementsAre(0));
  EXPECT_THAT(first->replicas[1].cpus, ElementsAre(1));
  const auto second = Place(Model("b", 2));
  EXPECT_THAT(second->replicas[0].cpus, ElementsAre(2));
  EXPECT_THAT(second->replicas[1].cpus, ElementsAre(3));
}

TEST_F(PlacementBookTest, SuccessorGetsThePlaceOfItsPredecessor) {
  const auto other = Place(Model("a", 2));
  const auto old = Place(Model("b", 2));
  EXPECT_EQ(Place(Model("b", 2), old.get())->replicas, old->replicas);
}

TEST_F(PlacementBookTest, PlaceIsFreeWhenTheClaimHasGone) {
  auto first = Place(Model("a", 3));
  first.reset();
  EXPECT_THAT(Place(Model("b", 1))->replicas[0].cpus, ElementsAre(0));
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

TEST_F(PlacementBookTest, ModelThatCantBePlacedHindersNoOther) {
  const auto places = book_.Place({Model("a", 0), Model("b", 1)}, Measurements(), {});
  EXPECT_TRUE(absl::IsInvalidArgument(places[0].status()));
  EXPECT_TRUE(places[1].ok());
}

}  // namespace
}  // namespace millrace
