// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/placement/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/placement/machines.h"

namespace millrace {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

ModelPlacementConfig Model(std::vector<InstanceGroup> groups = {},
                           std::optional<int> threads = std::nullopt,
                           std::optional<ReplicaRange> range = std::nullopt) {
  return {"model", 1, "torchscript", std::move(groups), threads, false, range};
}

ModelPlacementConfig PictureModel(std::vector<InstanceGroup> groups = {}) {
  ModelPlacementConfig model = Model(std::move(groups));
  model.has_transform = true;
  return model;
}

// The model above, as it was measured.
ModelPlacementConfig Measured(MeasuredBest best, ModelPlacementConfig model = Model()) {
  model.measured = best;
  return model;
}

PlacementPlan Plan(const Hardware& hardware, const std::vector<ModelPlacementConfig>& models,
                   PlacementOptions options = {}) {
  return PlanPlacement(hardware, models, options);
}

std::vector<int> Gpus(const ModelPlan& model) {
  std::vector<int> gpus;
  for (const ReplicaPlacement& replica : model.replicas) gpus.push_back(replica.device_index);
  return gpus;
}

std::vector<int> Threads(const ModelPlan& model) {
  std::vector<int> threads;
  for (const ReplicaPlacement& replica : model.replicas) threads.push_back(replica.threads);
  return threads;
}

std::vector<std::vector<int>> Cpus(const ModelPlan& model) {
  std::vector<std::vector<int>> cpus;
  for (const ReplicaPlacement& replica : model.replicas) cpus.push_back(replica.cpus);
  return cpus;
}

// Expects of a model without a count that it gets so many floating one-thread or `threads`-thread
// replicas, and asks for no more slots than one of them takes.
void ExpectAutomatic(const char* name, const Hardware& hardware, std::optional<int> threads,
                     size_t replicas) {
  SCOPED_TRACE(name);
  const PlacementPlan plan = Plan(hardware, {Model({}, threads)});
  ASSERT_TRUE(plan.models[0].status.ok());
  EXPECT_THAT(plan.models[0].replicas, SizeIs(replicas));
  EXPECT_THAT(Threads(plan.models[0]), Each(threads.value_or(1)));
  EXPECT_THAT(Gpus(plan.models[0]), Each(-1));
  EXPECT_THAT(Cpus(plan.models[0]), Each(IsEmpty()));
  EXPECT_EQ(plan.models[0].explicit_slots, threads.value_or(1));
  EXPECT_THAT(plan.warnings, IsEmpty());
}

TEST(Placement, AutomaticCpuPlanFillsTheBudgetAndFloats) {
  ExpectAutomatic("one core", SimulateCpus(1), {}, 1);
  ExpectAutomatic("half a core", SimulateQuota(8, 0.5), {}, 1);
  ExpectAutomatic("one and a half cores", SimulateQuota(8, 1.5), {}, 1);
  ExpectAutomatic("two cores", SimulateCpus(2), {}, 2);
  ExpectAutomatic("quota of two", SimulateQuota(8, 2), {}, 2);
  ExpectAutomatic("quota above the CPUs", SimulateQuota(4, 16), {}, 4);
  ExpectAutomatic("SMT and two nodes", SimulateCpus(16, 2, 2), {}, 32);
  ExpectAutomatic("two threads on five cores", SimulateCpus(5), 2, 2);
  ExpectAutomatic("four threads with SMT", SimulateCpus(16, 2, 2), 4, 8);
}

TEST(Placement, CpuKindWithoutCountFillsTheBudgetDespiteGpus) {
  const PlacementPlan plan = Plan(SimulateGpus(2), {Model({{DeviceKind::kCpu, {}, {}}})});
  EXPECT_THAT(plan.models[0].replicas, SizeIs(8));
  EXPECT_THAT(Gpus(plan.models[0]), Each(-1));
}

TEST(Placement, ExclusiveCpusetIsPinnedPhysicalCoresFirst) {
  // CPUs 0-3 of node 0 and the siblings of 0 and 1.
  const Hardware hardware = SimulateCpuset(SimulateCpus(16, 2, 2), {0, 1, 2, 3, 16, 17});
  const PlacementPlan plan = Plan(hardware, {Model()});
  EXPECT_THAT(Cpus(plan.models[0]), ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2),
                                                ElementsAre(3), ElementsAre(16), ElementsAre(17)));
}

TEST(Placement, ExclusiveCpusetUnderAQuotaPinsAsManyAsTheQuotaAllows) {
  Hardware hardware = SimulateCpuset(SimulateCpus(8), {4, 5, 6, 7});
  hardware.cpu.quota = 2.5;
  const PlacementPlan plan = Plan(hardware, {Model()});
  EXPECT_THAT(Cpus(plan.models[0]), ElementsAre(ElementsAre(4), ElementsAre(5)));
}

TEST(Placement, PinOnRequestSpreadsReplicasOverNodesEachOnItsOwnCpu) {
  const PlacementPlan plan = Plan(SimulateCpus(16, 2, 2), {Model()}, {.pin = true});
  const std::vector<std::vector<int>> cpus = Cpus(plan.models[0]);
  std::set<int> first_half;
  std::set<int> all;
  for (size_t i = 0; i < cpus.size(); ++i) {
    ASSERT_THAT(cpus[i], SizeIs(1));
    all.insert(cpus[i][0]);
    if (i < 16) first_half.insert(cpus[i][0]);
    EXPECT_EQ(SimulateTopology(16, 2, 2).Find(cpus[i][0]).node, static_cast<int>(i % 2));
  }
  EXPECT_THAT(all, SizeIs(32));
  EXPECT_EQ(*first_half.rbegin(), 15) << "physical cores go first";
}

TEST(Placement, PinnedReplicaOfSeveralThreadsGetsNeighbours) {
  const PlacementPlan plan =
      Plan(SimulateCpus(8, 2, 2), {Model({{DeviceKind::kCpu, 2, {}}}, 4)}, {.pin = true});
  EXPECT_THAT(Cpus(plan.models[0]), ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(4, 5, 6, 7)));
  EXPECT_EQ(plan.models[0].explicit_slots, 8);
}

TEST(Placement, PinnedReplicasOfSeveralModelsUseDifferentCpusWhileThereAreSome) {
  const ModelPlacementConfig one_replica = Model({{DeviceKind::kCpu, 1, {}}});
  const PlacementPlan plan = Plan(SimulateCpus(2), {one_replica, one_replica}, {.pin = true});
  EXPECT_THAT(Cpus(plan.models[0]), ElementsAre(ElementsAre(0)));
  EXPECT_THAT(Cpus(plan.models[1]), ElementsAre(ElementsAre(1)));
}

TEST(Placement, SeveralModelsShareTheSlotsOfTheBudget) {
  const PlacementPlan plan =
      Plan(SimulateCpus(2), {Model(), Model(), Model({{DeviceKind::kCpu, 2, {}}})});
  for (const ModelPlan& model : plan.models) {
    EXPECT_THAT(model.replicas, SizeIs(2));
    EXPECT_LE(model.explicit_slots, 2);
  }
  EXPECT_THAT(plan.warnings, IsEmpty());
}

TEST(Placement, MoreReplicasThanTheBudgetAreAllowedWithOneWarning) {
  const PlacementPlan plan =
      Plan(SimulateQuota(8, 1.5), {Model({{DeviceKind::kCpu, 3, {}}}), Model()});
  EXPECT_THAT(plan.models[0].replicas, SizeIs(3));
  EXPECT_EQ(plan.models[0].explicit_slots, 3);
  ASSERT_THAT(plan.warnings, SizeIs(1));
  EXPECT_THAT(plan.warnings[0], HasSubstr("asks for 3 threads in all, but the CPU budget is 1 "
                                          "core (a quota)"));
  EXPECT_THAT(plan.warnings[0], HasSubstr("ten times slower"));
}

TEST(Placement, GroupsOfAModelAddUp) {
  const InstanceGroup two{DeviceKind::kCpu, 2, {}};
  EXPECT_EQ(Plan(SimulateCpus(2), {Model({two, two})}).models[0].explicit_slots, 4);
  EXPECT_EQ(Plan(SimulateCpus(4), {Model({two, two})}).models[0].explicit_slots, 4);
  EXPECT_THAT(Plan(SimulateCpus(4), {Model({two, two})}).warnings, IsEmpty());
}

TEST(Placement, ReplicaWiderThanTheBudgetIsAllowedWithOneWarning) {
  const PlacementPlan plan = Plan(SimulateCpus(2), {Model({}, 4)}, {.pin = true});
  EXPECT_THAT(Threads(plan.models[0]), ElementsAre(4));
  EXPECT_THAT(Cpus(plan.models[0]), ElementsAre(ElementsAre(0, 1)));
  EXPECT_EQ(plan.models[0].explicit_slots, 4);
  EXPECT_THAT(plan.warnings, SizeIs(1));
}

// Expects on which GPUs the replicas of a model with `group` are, in order.
void ExpectGpus(const char* name, int gpus, InstanceGroup group, const std::vector<int>& expected) {
  SCOPED_TRACE(name);
  const PlacementPlan plan = Plan(SimulateGpus(gpus), {Model({std::move(group)})}, {.pin = true});
  ASSERT_TRUE(plan.models[0].status.ok()) << plan.models[0].status;
  EXPECT_EQ(Gpus(plan.models[0]), expected);
  for (const ReplicaPlacement& replica : plan.models[0].replicas) {
    EXPECT_EQ(replica.device, DeviceKind::kGpu);
    EXPECT_EQ(replica.slots(), 0);
    EXPECT_THAT(replica.cpus, IsEmpty());
  }
  EXPECT_EQ(plan.models[0].explicit_slots, 0);
  EXPECT_THAT(plan.warnings, IsEmpty());
}

constexpr DeviceKind kAuto = DeviceKind::kAuto;
constexpr DeviceKind kGpu = DeviceKind::kGpu;

TEST(Placement, ReplicasAreDealtOverGpusInTurn) {
  ExpectGpus("one", 1, {}, {0});
  ExpectGpus("two", 2, {}, {0, 1});
  ExpectGpus("four", 4, {}, {0, 1, 2, 3});
  ExpectGpus("eight", 8, {}, {0, 1, 2, 3, 4, 5, 6, 7});
  ExpectGpus("KIND_GPU", 2, {kGpu, {}, {}}, {0, 1});
  ExpectGpus("three on one", 1, {kGpu, 3, {}}, {0, 0, 0});
  ExpectGpus("two on each of four", 4, {kGpu, 2, {}}, {0, 1, 2, 3, 0, 1, 2, 3});
  ExpectGpus("KIND_AUTO with a count", 2, {kAuto, 2, {}}, {0, 1, 0, 1});
  ExpectGpus("two of eight", 8, {kGpu, 2, {5, 1}}, {5, 1, 5, 1});
  ExpectGpus("one of four", 4, {kGpu, {}, {2}}, {2});
}

TEST(Placement, GroupsOnBothDevicesFollowEachOther) {
  const PlacementPlan plan =
      Plan(SimulateGpus(2), {Model({{DeviceKind::kGpu, 1, {}}, {DeviceKind::kCpu, 3, {}}})});
  EXPECT_THAT(Gpus(plan.models[0]), ElementsAre(0, 1, -1, -1, -1));
}

TEST(Placement, AutomaticKindIsCpuWithoutGpus) {
  const PlacementPlan plan = Plan(SimulateCpus(4), {Model({{DeviceKind::kAuto, 3, {}}})});
  EXPECT_THAT(Gpus(plan.models[0]), ElementsAre(-1, -1, -1));
}

// Expects an error for `model`, and that another one is placed all the same.
void ExpectError(const char* name, int gpus, const ModelPlacementConfig& model,
                 absl::StatusCode code, const char* message) {
  SCOPED_TRACE(name);
  const PlacementPlan plan = Plan(SimulateGpus(gpus), {model, Model()});
  EXPECT_EQ(plan.models[0].status.code(), code);
  EXPECT_THAT(std::string(plan.models[0].status.message()), HasSubstr(message));
  EXPECT_THAT(plan.models[0].replicas, IsEmpty());
  EXPECT_TRUE(plan.models[1].status.ok());
  EXPECT_FALSE(plan.models[1].replicas.empty());
  EXPECT_THAT(plan.warnings, IsEmpty());
}

TEST(Placement, MissingGpuIsAnErrorThatNamesWhatThereIs) {
  constexpr absl::StatusCode kMissing = absl::StatusCode::kFailedPrecondition;
  ExpectError("none", 0, Model({{kGpu, 1, {}}}), kMissing, "there is no GPU here");
  ExpectError("unknown", 2, Model({{kGpu, 1, {0, 2}}}), kMissing,
              "GPU 2, but the GPUs here are 0 (Simulated), 1 (Simulated)");
  ExpectError("KIND_AUTO", 1, Model({{kAuto, 1, {7}}}), kMissing, "GPU 7");
}

TEST(Placement, NonsenseIsAnErrorOfItsModelOnly) {
  constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  ExpectError("GPU twice", 2, Model({{kGpu, 1, {1, 1}}}), kInvalid, "GPU 1 twice");
  ExpectError("GPUs on CPU", 2, Model({{DeviceKind::kCpu, 1, {1}}}), kInvalid,
              "KIND_CPU and gpus [1]");
  ExpectError("negative count", 0, Model({{kAuto, -1, {}}}), kInvalid, "count -1");
  ExpectError("no replica", 0, Model({{kAuto, 0, {}}}), kInvalid, "count 0");
  ExpectError("huge count", 0, Model({{kAuto, 2000000000, {}}}), kInvalid, "at most 1024");
  ExpectError("huge on GPUs", 8, Model({{kAuto, 1000, {}}}), kInvalid, "8000 replicas");
  ExpectError("huge sum", 0, Model({{kAuto, 1000, {}}, {kAuto, 1000, {}}}), kInvalid,
              "2000 replicas");
  ModelPlacementConfig reduced = Model();
  reduced.bfloat16 = true;
  ExpectError("no BF16", 0, reduced, absl::StatusCode::kFailedPrecondition, "remove bfloat16");
  ExpectError("no thread", 0, Model({}, 0), kInvalid, "threads is 0");
  ExpectError("huge threads", 0, Model({}, 2000000000), kInvalid, "expected 1 to 1024");
}

TEST(Placement, MeasuredOptimumReplacesTheAutomaticPlanOfItsModelOnly) {
  ModelPlacementConfig other = Model();
  other.model = "other";
  const PlacementPlan plan =
      Plan(SimulateCpus(8), {Measured({2, 4, 0, {}}), other, Model(), Measured({1, 3, 0, {}})});
  EXPECT_THAT(Threads(plan.models[0]), ElementsAre(4, 4));
  EXPECT_EQ(plan.models[0].numbers, NumbersFrom::kMeasuring);
  EXPECT_THAT(plan.models[1].replicas, SizeIs(8));
  EXPECT_THAT(plan.models[2].replicas, SizeIs(8)) << "the same version, loaded a second time";
  EXPECT_EQ(plan.models[2].numbers, NumbersFrom::kHardware);
  EXPECT_THAT(Threads(plan.models[3]), ElementsAre(3)) << "and a third time";
  EXPECT_THAT(plan.warnings, IsEmpty());
}

TEST(Placement, MeasuredOptimumHoldsOnlyWithTheNumbersThatAreConfigured) {
  const auto threads = [&](const ModelPlacementConfig& model) {
    return Threads(Plan(SimulateCpus(8), {Measured({2, 4, 0, {}}, model)}).models[0]);
  };
  EXPECT_THAT(threads(Model({{DeviceKind::kCpu, 3, {}}})), ElementsAre(1, 1, 1));
  EXPECT_THAT(threads(Model({{DeviceKind::kCpu, 2, {}}})), ElementsAre(4, 4));
  EXPECT_THAT(threads(Model({}, 2)), ElementsAre(2, 2, 2, 2));
  EXPECT_THAT(threads(Model({}, 4)), ElementsAre(4, 4));
  EXPECT_THAT(threads(Model({{DeviceKind::kCpu, {}, {}}, {DeviceKind::kCpu, {}, {}}})), SizeIs(16))
      << "to which group would it belong?";
  EXPECT_THAT(Gpus(Plan(SimulateGpus(1), {Measured({2, 4, 0, {}})}).models[0]), ElementsAre(0))
      << "it was measured on CPUs";
}

TEST(Placement, MeasuringMayUseTheFractionOfAQuota) {
  ModelPlacementConfig other = Measured({1, 2, 0, {}});
  other.model = "other";
  const ModelPlacementConfig model = Measured({2, 1, 0, {}});
  const PlacementPlan plan = Plan(SimulateQuota(8, 1.5), {model, other});
  EXPECT_THAT(Threads(plan.models[0]), ElementsAre(1, 1));
  EXPECT_THAT(Threads(plan.models[1]), ElementsAre(2));
  EXPECT_EQ(plan.models[0].explicit_slots, 2) << "or only one of the replicas would run";
  EXPECT_THAT(plan.warnings, IsEmpty());
  EXPECT_THAT(Threads(Plan(SimulateQuota(8, 0.5), {model}).models[0]), ElementsAre(1));
}

TEST(Placement, MeasurementOfALargerMachineIsCutToTheBudget) {
  const PlacementPlan plan = Plan(SimulateCpus(6), {Measured({8, 4, 0, {}})});
  EXPECT_THAT(Threads(plan.models[0]), ElementsAre(4));
  EXPECT_THAT(Threads(Plan(SimulateCpus(6), {Measured({1, 16, 0, {}})}).models[0]), ElementsAre(6));
}

TEST(Placement, Bfloat16IsForCpusThatComputeInItAndForGpusNoMatter) {
  ModelPlacementConfig model = Model();
  model.bfloat16 = true;
  Hardware hardware = SimulateCpus(2);
  hardware.cpu_model.computes_bfloat16 = true;
  EXPECT_THAT(Plan(hardware, {model}).models[0].replicas, SizeIs(2));
  EXPECT_TRUE(Plan(SimulateGpus(1), {model}).models[0].status.ok());
}

TEST(Placement, ModelOnCpusMayGetAsManyReplicasAsFit) {
  const PlacementPlan plan =
      Plan(SimulateCpus(8),
           {Model(), Model({{DeviceKind::kCpu, 2, {}}}), Model({{DeviceKind::kCpu, 1, {}}}, 3),
            Model({{DeviceKind::kCpu, 1, {}}, {DeviceKind::kCpu, 1, {}}})});
  EXPECT_THAT(plan.models[0].replicas, SizeIs(8));
  EXPECT_THAT(plan.models[0].spares, IsEmpty());
  EXPECT_THAT(plan.models[1].replicas, SizeIs(2));
  EXPECT_THAT(plan.models[1].spares, SizeIs(6));
  EXPECT_THAT(plan.models[2].spares, SizeIs(1));
  EXPECT_EQ(plan.models[2].spares[0].threads, 3);
  EXPECT_THAT(plan.models[3].spares, IsEmpty()) << "which group would they belong to?";
}

TEST(Placement, NumberThatMayVaryStartsAtTheLeastAndStaysInTheBudget) {
  const ReplicaRange range = {.least = 2, .most = 100};
  const std::vector<InstanceGroup> counted = {{DeviceKind::kCpu, 3, {}}};
  const std::vector<InstanceGroup> too_many = {{DeviceKind::kCpu, 200, {}}};
  const PlacementPlan plan =
      Plan(SimulateCpus(8), {Model({}, std::nullopt, range), Model(counted, std::nullopt, range),
                             Model(too_many, std::nullopt, range), Model({}, 4, range)});
  const auto sizes = [&](size_t i) {
    return std::make_pair(plan.models[i].replicas.size(), plan.models[i].spares.size());
  };
  EXPECT_EQ(sizes(0), std::make_pair(size_t{2}, size_t{6}));
  EXPECT_EQ(sizes(1), std::make_pair(size_t{3}, size_t{5}));
  EXPECT_EQ(sizes(2), std::make_pair(size_t{100}, size_t{0}));
  EXPECT_EQ(sizes(3), std::make_pair(size_t{2}, size_t{0}));
}

TEST(Placement, SparesOnGpusAreDealtInTheSameTurn) {
  const PlacementPlan plan =
      Plan(SimulateGpus(3), {Model({{DeviceKind::kGpu, 1, {}}}),
                             Model({{DeviceKind::kGpu, 1, {}}}, std::nullopt, {{2, 5}})});
  EXPECT_THAT(Gpus(plan.models[0]), ElementsAre(0, 1, 2));
  EXPECT_THAT(plan.models[0].spares, IsEmpty());
  EXPECT_THAT(Gpus(plan.models[1]), ElementsAre(0, 1, 2));
  ASSERT_THAT(plan.models[1].spares, SizeIs(2));
  EXPECT_EQ(plan.models[1].spares[0].device_index, 0);
  EXPECT_EQ(plan.models[1].spares[1].device_index, 1);
}

TEST(Placement, SparesArePinnedAfterTheReplicasOfAllModels) {
  const PlacementPlan plan =
      Plan(SimulateCpus(4),
           {Model({{DeviceKind::kCpu, 1, {}}}), Model({{DeviceKind::kCpu, 1, {}}})}, {.pin = true});
  EXPECT_NE(plan.models[0].replicas[0].cpus, plan.models[1].replicas[0].cpus);
  EXPECT_THAT(plan.models[0].spares, SizeIs(3));
  for (const ReplicaPlacement& spare : plan.models[0].spares) EXPECT_THAT(spare.cpus, SizeIs(1));
}

TEST(Placement, TransformWorkersArePlannedWhereAModelNeedsThem) {
  EXPECT_FALSE(Plan(SimulateCpus(4), {Model()}).transform);
  const PlacementPlan plan = Plan(SimulateCpus(4), {Model(), PictureModel()});
  ASSERT_TRUE(plan.transform);
  EXPECT_EQ(plan.transform->workers, 4) << "A slot each.";
  EXPECT_THAT(plan.transform->cpus, IsEmpty()) << "They float as replicas do.";
  EXPECT_EQ(Plan(SimulateCpus(4), {PictureModel()}, {.transform_workers = 7}).transform->workers,
            7);
}

TEST(Placement, TransformWorkersGetTheCpusThatReplicasLeave) {
  const auto plan = [](int count, int workers) {
    return Plan(SimulateCpus(4), {PictureModel({{DeviceKind::kCpu, count, {}}})},
                {.pin = true, .transform_workers = workers});
  };
  EXPECT_THAT(plan(1, 2).transform->cpus, ElementsAre(1, 2, 3));
  EXPECT_THAT(plan(3, 1).transform->cpus, ElementsAre(3));
  EXPECT_THAT(plan(3, 2).transform->cpus, ElementsAre(0, 1, 2, 3)) << "Too few are left.";
  EXPECT_THAT(plan(4, 1).transform->cpus, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Plan(SimulateGpus(1), {PictureModel()}, {.pin = true}).transform->cpus, SizeIs(8));
}

TEST(Placement, TransformWorkersKeepOffReplicasThatRunAlready) {
  const std::vector<ReplicaPlacement> placed = {{.cpus = {0, 1}, .threads = 2}};
  EXPECT_THAT(PlaceTransformWorkers(SimulateCpus(4), 2, {.pin = true}, placed), ElementsAre(2, 3));
  EXPECT_THAT(PlaceTransformWorkers(SimulateCpus(4), 2, {}, placed), IsEmpty());
  const Hardware part = SimulateCpuset(SimulateCpus(8), {4, 5, 6});
  EXPECT_THAT(PlaceTransformWorkers(part, 1, {}, {}), ElementsAre(4, 5, 6));
}

TEST(Placement, MostPlacesAreThoseOfTheWholeMachine) {
  const auto most = [](const Hardware& hardware, const ModelPlacementConfig& model) {
    return Plan(hardware, {model}).models[0].most_places;
  };
  const Hardware part = SimulateCpuset(SimulateQuota(16, 1.5), {4, 5});
  EXPECT_EQ(most(part, Model()), 16);
  EXPECT_EQ(most(part, Model({}, 3)), 5);
  EXPECT_EQ(most(part, Model({{DeviceKind::kCpu, 40, {}}})), 40) << "more than the machine has";
  EXPECT_EQ(most(part, Model({}, std::nullopt, {{2, 8}})), 8);
  EXPECT_EQ(most(part, Model({{DeviceKind::kCpu, 2, {}}, {DeviceKind::kCpu, 1, {}}})), 3);
  EXPECT_EQ(most(SimulateGpus(2), Model()), 2);
}

TEST(Placement, TableHasALineForNeighboursThatArePlacedAlike) {
  ModelPlacementConfig detector = Model({{DeviceKind::kGpu, 2, {}}});
  detector.model = "detector";
  detector.version = 12;
  ModelPlacementConfig broken = Model({{DeviceKind::kGpu, 1, {9}}});
  broken.model = "broken";
  ModelPlacementConfig classifier = Model({{DeviceKind::kCpu, 2, {}}}, 2);
  classifier.engine = "aotinductor";
  const std::vector<ModelPlacementConfig> models = {detector, broken, classifier};
  EXPECT_EQ(FormatPlan(Plan(SimulateGpus(1), models)),
            "model     version  engine       replica  device  cores  threads  numbers\n"
            "detector  12       torchscript  0-1      gpu 0   any    1        configured\n"
            "broken    1        torchscript  none     -       -      -        -\n"
            "model     1        aotinductor  0-1      cpu     any    2        configured\n");
  EXPECT_EQ(FormatPlan(Plan(SimulateGpus(1), {classifier}, {.pin = true})),
            "model  version  engine       replica  device  cores  threads  numbers\n"
            "model  1        aotinductor  0        cpu     0-1    2        configured\n"
            "model  1        aotinductor  1        cpu     2-3    2        configured\n");
  EXPECT_EQ(FormatPlan(Plan(SimulateCpus(3), {PictureModel({{DeviceKind::kCpu, 1, {}}})},
                            {.pin = true, .transform_workers = 2})),
            "model              version  engine       replica  device  cores  threads  numbers\n"
            "model              1        torchscript  0        cpu     0      1        configured\n"
            "transform workers  -        -            0-1      cpu     1-2    1        -\n");
  EXPECT_EQ(FormatPlan(Plan(SimulateCpus(2), {Measured({1, 2, 0, {}})})),
            "model  version  engine       replica  device  cores  threads  numbers\n"
            "model  1        torchscript  0        cpu     any    2        measured\n");
}

}  // namespace
}  // namespace millrace
