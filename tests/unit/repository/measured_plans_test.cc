// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/measured_plans.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "server/repository/manifest.h"
#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

const MachineFingerprint kHere = {
    .cpu = "AMD EPYC", .isa = "AVX2", .cores = 2, .gpus = {}, .libtorch = "2.13.0"};

// A repository with one version of a model, and plans.
class MeasuredPlansTest : public testing::Test {
 protected:
  MeasuredPlansTest() {
    settings_.name = "net";
    tree_.Write("net/1/model.pt", "script").Write("net/1/model.pt2", "package");
    version_.number = 1;
    version_.path = Path("net/1/model.pt");
    version_.package = Path("net/1/model.pt2");
  }

  std::string Path(const std::string& within) const { return (tree_.root() / within).string(); }

  std::string HashOf(const std::string& within) const {
    const UniqueFd file(open(Path(within).c_str(), O_RDONLY | O_CLOEXEC));
    return *Sha256Of(file.get());
  }

  // What was measured of a file.
  TunedModel Tuned(const std::string& file, MeasuredBest best) const {
    TunedModel tuned;
    tuned.model = "net";
    tuned.sha256 = HashOf(file);
    tuned.objective = "throughput";
    tuned.best = best;
    return tuned;
  }

  void Write(const std::vector<TunedModel>& models, MachineFingerprint machine = kHere) const {
    ASSERT_TRUE(WritePlanFile(PlanPath(Path(""), kHere), {std::move(machine), models}).ok());
  }

  // The replicas that were measured; 0 where nothing was.
  int Replicas(MeasuredPlans::Options options = {.machine = kHere, .ignore = false, .file = ""}) {
    MeasuredPlans plans(std::move(options));
    const std::optional<TunedModel> found = plans.Find(settings_, version_);
    return found ? found->best.replicas : 0;
  }

  FileTree tree_;
  ModelSettings settings_;
  ModelVersion version_;
};

TEST_F(MeasuredPlansTest, WhatWasMeasuredOfTheFileOnThisMachineIsFound) {
  EXPECT_EQ(Replicas(), 0) << "there is no plan yet";
  Write({Tuned("net/1/model.pt", {.replicas = 3, .threads = 1, .most_rows = 0, .mode = {}})});
  EXPECT_EQ(Replicas(), 3);
  EXPECT_EQ(Replicas({.machine = kHere, .ignore = true, .file = ""}), 0);
  MachineFingerprint other = kHere;
  other.cores = 4;
  EXPECT_EQ(Replicas({.machine = other, .ignore = false, .file = ""}), 0);
  settings_.name = "other";
  EXPECT_EQ(Replicas(), 0);
}

TEST_F(MeasuredPlansTest, WhatHasJustBeenMeasuredCountsBeforeTheFile) {
  MeasuredPlans plans({.machine = kHere, .ignore = false, .file = ""});
  EXPECT_FALSE(plans.Knows(settings_, version_));
  plans.Add({Tuned("net/1/model.pt", {.replicas = 2, .threads = 1, .most_rows = 0, .mode = {}})});
  EXPECT_TRUE(plans.Knows(settings_, version_));
  Write({Tuned("net/1/model.pt", {.replicas = 3, .threads = 1, .most_rows = 0, .mode = {}})});
  EXPECT_EQ(plans.Find(settings_, version_)->best.replicas, 2);
  tree_.Write("net/1/model.pt", "retrained");
  EXPECT_FALSE(plans.Knows(settings_, version_));
}

TEST_F(MeasuredPlansTest, AnotherFileOfTheModelIsAnotherModel) {
  Write({Tuned("net/1/model.pt", {.replicas = 3, .threads = 1, .most_rows = 0, .mode = {}})});
  tree_.Write("net/1/model.pt", "retrained");
  EXPECT_EQ(Replicas(), 0);
}

TEST_F(MeasuredPlansTest, APlanUnderTheNameOfThisMachineIsLookedInto) {
  MachineFingerprint other = kHere;
  other.cores = 4;
  Write({Tuned("net/1/model.pt", {.replicas = 3, .threads = 1, .most_rows = 0, .mode = {}})},
        other);
  EXPECT_EQ(Replicas(), 0);
  tree_.Write(
      absl::StrCat(".millrace/", std::filesystem::path(PlanPath("", kHere)).filename().string()),
      "{");
  EXPECT_EQ(Replicas(), 0);
}

TEST_F(MeasuredPlansTest, AFileThatIsNamedStandsForAllRepositories) {
  Write({Tuned("net/1/model.pt", {.replicas = 3, .threads = 1, .most_rows = 0, .mode = {}})});
  ASSERT_TRUE(WritePlanFile(Path("named.json"),
                            {kHere,
                             {Tuned("net/1/model.pt",
                                    {.replicas = 4, .threads = 1, .most_rows = 0, .mode = {}})}})
                  .ok());
  EXPECT_EQ(Replicas({.machine = kHere, .ignore = false, .file = Path("named.json")}), 4);
}

TEST_F(MeasuredPlansTest, APackageIsFoundWhereItMayRun) {
  const ExecutionMode compiled = {.engine = EngineKind::kAotInductor};
  Write(
      {Tuned("net/1/model.pt2", {.replicas = 5, .threads = 1, .most_rows = 0, .mode = compiled})});
  EXPECT_EQ(Replicas(), 5);
  version_.package = "";  // As where the config says how to run the model.
  EXPECT_EQ(Replicas(), 0);
}

TEST_F(MeasuredPlansTest, TheLastOfSeveralThatFitCounts) {
  const ExecutionMode compiled = {.engine = EngineKind::kAotInductor};
  Write(
      {Tuned("net/1/model.pt", {.replicas = 3, .threads = 1, .most_rows = 0, .mode = {}}),
       Tuned("net/1/model.pt2", {.replicas = 5, .threads = 1, .most_rows = 0, .mode = compiled})});
  EXPECT_EQ(Replicas(), 5);
}

TEST_F(MeasuredPlansTest, NumbersOfAnotherConfigurationDontCount) {
  ExecutionMode reduced;
  reduced.bfloat16 = true;
  Write({Tuned("net/1/model.pt", {.replicas = 3, .threads = 2, .most_rows = 0, .mode = reduced})});
  EXPECT_EQ(Replicas(), 3);
  const auto with = [&](auto change) {
    const ModelSettings before = settings_;
    change(settings_);
    const int replicas = Replicas();
    settings_ = before;
    return replicas;
  };
  EXPECT_EQ(with([](ModelSettings& s) { s.execution.bfloat16 = true; }), 3);
  EXPECT_EQ(with([](ModelSettings& s) { s.execution.bfloat16 = false; }), 0);
  EXPECT_EQ(with([](ModelSettings& s) { s.execution.channels_last = true; }), 0);
  EXPECT_EQ(with([](ModelSettings& s) { s.execution.wait = ThreadWait::kActive; }), 0);
  EXPECT_EQ(with([](ModelSettings& s) { s.disable_optimized_execution = true; }), 0);
  EXPECT_EQ(with([](ModelSettings& s) { s.intra_op_threads = 2; }), 3);
  EXPECT_EQ(with([](ModelSettings& s) { s.intra_op_threads = 1; }), 0);
  EXPECT_EQ(with([](ModelSettings& s) { s.instance_groups = {{DeviceKind::kCpu, 3, {}}}; }), 3);
  EXPECT_EQ(with([](ModelSettings& s) { s.instance_groups = {{DeviceKind::kCpu, 2, {}}}; }), 0);
  EXPECT_EQ(with([](ModelSettings& s) { s.instance_groups.resize(2); }), 0);
}

}  // namespace
}  // namespace millrace
