// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/tuning_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

Measured Plan(int replicas, int threads, double rows_per_second) {
  Measured measured;
  measured.candidate.replicas = replicas;
  measured.candidate.threads = threads;
  measured.candidate.mode = ExecutionMode();
  measured.finding = {
      .candidate = 0, .runs = 3, .ratio = rows_per_second / 200, .low = 0.4, .high = 1.2};
  measured.trial = {.rows_per_second = rows_per_second,
                    .p50 = absl::Milliseconds(4),
                    .p99 = absl::Milliseconds(5)};
  return measured;
}

TuningReport Report() {
  TunedVersion tuned = {.model = "detector"};
  tuned.version.number = 3;
  tuned.max_batch_size = 8;
  tuned.tuning.certain = true;
  tuned.tuning.measured = {Plan(2, 1, 200), Plan(1, 2, 150), Plan(1, 1, 0)};
  tuned.tuning.measured[2].finding = {.status = absl::InternalError("it raised")};
  tuned.tuning.oversubscribed = {Plan(2, 8, 20)};
  tuned.chosen = tuned.tuning.measured[0].candidate;
  tuned.sha256 = "abc";
  TunedVersion failed = {.model = "encoder", .status = absl::FailedPreconditionError("no dims")};
  failed.version.number = 1;
  return {.machine = {.cpu = "CPU", .isa = "AVX2", .cores = 2, .gpus = {}, .libtorch = "2.13.0"},
          .objective = {},
          .models = {tuned, failed}};
}

TEST(TuningReport, SaysWhatWasChosenAndWhatItWasComparedWith) {
  const std::string text = FormatReport(Report());
  EXPECT_THAT(text, HasSubstr("detector version 3 for throughput: 2 x 1, batches of 8, torchscript"
                              " (certain)\n"));
  EXPECT_THAT(text,
              HasSubstr("2 x 1               8      torchscript  200     4 ms  5 ms  100.0 %"));
  EXPECT_THAT(text, HasSubstr("failed: it raised\n"));
  EXPECT_THAT(text, HasSubstr("with more threads than cores:\n"));
  EXPECT_THAT(text, HasSubstr("encoder version 1 was not tuned: no dims\n"));
}

TEST(TuningReport, JsonHasEveryPlan) {
  const auto json = nlohmann::json::parse(ReportJson(Report()));
  EXPECT_EQ(json["cores"], 2);
  EXPECT_EQ(json["objective"], "throughput");
  const auto& model = json["models"][0];
  EXPECT_EQ(model["chosen"]["replicas"], 2);
  EXPECT_EQ(model["chosen"]["batch"], 8);
  ASSERT_EQ(model["plans"].size(), 4);
  EXPECT_EQ(model["plans"][1]["rows_per_second"], 150);
  EXPECT_EQ(model["plans"][1]["p99_ms"], 5);
  EXPECT_EQ(model["plans"][2]["error"], "it raised");
  EXPECT_EQ(model["plans"][3]["oversubscribed"], true);
  EXPECT_EQ(json["models"][1]["error"], "no dims");
}

TEST(TuningReport, PlanHasWhatWasFound) {
  const TunedPlan plan = PlanOf(Report());
  ASSERT_EQ(plan.models.size(), 1);
  EXPECT_EQ(plan.models[0].model, "detector");
  EXPECT_EQ(plan.models[0].sha256, "abc");
  EXPECT_EQ(plan.models[0].objective, "throughput");
  EXPECT_EQ(plan.models[0].best.replicas, 2);
  EXPECT_EQ(plan.models[0].figures->rows_per_second, 200);
  EXPECT_EQ(plan.models[0].figures->p99, absl::Milliseconds(5));
}

TEST(TuningReport, FiguresInAPlanAreThoseOfWhatWasChosen) {
  TuningReport report = Report();
  TunedVersion& tuned = report.models[0];
  tuned.chosen = tuned.tuning.measured[1].candidate;
  EXPECT_EQ(PlanOf(report).models[0].figures->rows_per_second, 150);
  tuned.chosen.replicas = 7;  // Between two that were measured.
  EXPECT_EQ(PlanOf(report).models[0].figures, std::nullopt);
}

TEST(TuningReport, WhatWasVerifiedOfTheBestAloneIsNotSaidOfAShare) {
  TuningReport report = Report();
  report.objective = {.goal = Objective::Goal::kSlo, .limit = absl::Milliseconds(50)};
  TunedVersion& tuned = report.models[0];
  tuned.tuning.verified = {.rows_per_second = 90, .p50 = {}, .p99 = absl::Milliseconds(40)};
  EXPECT_EQ(PlanOf(report).models[0].figures->rows_per_second, 90);
  EXPECT_THAT(FormatReport(report), HasSubstr("  90 requests/s at random, with a p99 of 40 ms\n"));
  tuned.chosen = tuned.tuning.measured[1].candidate;
  EXPECT_EQ(PlanOf(report).models[0].figures, std::nullopt);
  EXPECT_THAT(FormatReport(report), HasSubstr("40 ms, alone; in its share it wasn't measured\n"));
}

TEST(TuningReport, NewerPlansComeAfterOthersAndReplaceTheirOwn) {
  TunedPlan known = PlanOf(Report());
  known.models.push_back(known.models[0]);
  known.models[1].model = "other";
  known.models.push_back(known.models[0]);
  known.models[2].sha256 = "another file";
  const TunedPlan merged = Merge(known, PlanOf(Report()));
  ASSERT_EQ(merged.models.size(), 3);
  EXPECT_EQ(merged.models[0].model, "other");
  EXPECT_EQ(merged.models[1].sha256, "another file");
  EXPECT_EQ(merged.models[2].sha256, "abc");
}

TEST(TuningReport, PlanOfAnotherMachineIsLeftAsItIs) {
  const FileTree tree;
  const std::string path = (tree.root() / "plan.json").string();
  TuningReport report = Report();
  report.models[0].sha256 = std::string(64, 'a');
  EXPECT_TRUE(CheckPlans({}, report.machine, path).ok()) << "there is none yet";
  ASSERT_TRUE(WritePlans(report, path).ok());
  EXPECT_TRUE(CheckPlans({}, report.machine, path).ok());
  const TunedPlan before = *ReadPlanFile(path);

  report.machine.cores = 4;
  EXPECT_TRUE(absl::IsFailedPrecondition(CheckPlans({}, report.machine, path)));
  const absl::Status written = WritePlans(report, path).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(written));
  EXPECT_THAT(std::string(written.message()),
              HasSubstr("was measured on another machine (2 cores instead of 4 cores)"));
  EXPECT_EQ(*ReadPlanFile(path), before);
}

}  // namespace
}  // namespace millrace
