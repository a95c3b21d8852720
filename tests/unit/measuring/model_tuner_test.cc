// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/model_tuner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/fakes/seed.h"
#include "tests/unit/measuring/simulated_machine.h"

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr SimulatedMachine::Noise kQuiet = {.run = 0, .drift = 0, .disturbed = 0};
constexpr ExecutionMode kTorchScript = {};
constexpr ExecutionMode kPackage = {.engine = EngineKind::kAotInductor};
constexpr ExecutionMode kBfloat16 = {.bfloat16 = true};

absl::StatusOr<ModelTuning> Tune(SimulatedMachine& machine, ModelTuner::Options options,
                                 absl::Duration budget = absl::Minutes(2)) {
  ModelTuner tuner(std::move(options), machine.clock(), machine, [](const std::string&) {});
  return tuner.Tune(machine.clock().Now() + budget);
}

// A team of n threads is as fast as Amdahl says, with 80 % in parallel, on enough cores.
double TeamTime(int threads) { return 0.2 + 0.8 / threads; }

// Batches with a set-up: wide teams are good for latency, many replicas for throughput.
double Usual(const Candidate& candidate, int64_t rows) {
  return (0.002 + 0.001 * static_cast<double>(rows)) * TeamTime(candidate.threads);
}

TEST(ModelTuner, ManyReplicasForThroughput) {
  SimulatedMachine machine(1, kQuiet, 16, Usual);
  const auto tuning =
      Tune(machine, {.space = {.cores = 4, .max_batch_size = 16, .modes = {kTorchScript}}});
  ASSERT_TRUE(tuning.ok());
  const Candidate& best = tuning->measured.front().candidate;
  EXPECT_EQ(best.replicas, 4);
  EXPECT_EQ(best.threads, 1);
  EXPECT_EQ(best.most_rows, 0);
  EXPECT_TRUE(tuning->certain);
  EXPECT_NEAR(tuning->measured.front().trial.rows_per_second, 4 * 16 / 0.018, 1);
}

TEST(ModelTuner, OneWideTeamForLatency) {
  SimulatedMachine machine(1, kQuiet, 16, Usual);
  const auto tuning =
      Tune(machine, {.space = {.cores = 4, .max_batch_size = 16, .modes = {kTorchScript}},
                     .objective = {.goal = Objective::Goal::kLatency}});
  ASSERT_TRUE(tuning.ok());
  EXPECT_EQ(tuning->measured.front().candidate.threads, 4);
}

TEST(ModelTuner, SmallerBatchWhereACacheIsSmall) {
  SimulatedMachine machine(1, kQuiet, 16, [](const Candidate& candidate, int64_t rows) {
    return Usual(candidate, rows) * (rows > 4 ? 3 : 1);
  });
  const auto tuning =
      Tune(machine, {.space = {.cores = 2, .max_batch_size = 16, .modes = {kTorchScript}}});
  ASSERT_TRUE(tuning.ok());
  EXPECT_EQ(tuning->measured.front().candidate.most_rows, 4);
}

TEST(ModelTuner, TakesTheFastestMode) {
  SimulatedMachine machine(1, kQuiet, 4, [](const Candidate& candidate, int64_t rows) {
    const double gain = candidate.mode->engine == EngineKind::kAotInductor ? 0.7
                        : candidate.mode->bfloat16                         ? 0.9
                                                                           : 1.0;
    return gain * Usual(candidate, rows);
  });
  const auto tuning = Tune(
      machine,
      {.space = {.cores = 2, .max_batch_size = 4, .modes = {kTorchScript, kPackage, kBfloat16}}});
  ASSERT_TRUE(tuning.ok());
  EXPECT_EQ(*tuning->measured.front().candidate.mode, kPackage);
  // The modes that lost are in the list, too, compared with the best.
  const auto other =
      std::find_if(tuning->measured.begin(), tuning->measured.end(), [](const Measured& each) {
        return *each.candidate.mode == kBfloat16 && each.candidate.replicas == 2;
      });
  ASSERT_NE(other, tuning->measured.end());
  EXPECT_NEAR(other->finding.ratio, 0.7 / 0.9, 0.01);
}

TEST(ModelTuner, ModesAreTriedAgainInTheBestLayout) {
  // The package is a little slower alone, and faster in a team, which this model likes.
  SimulatedMachine machine(1, kQuiet, 1, [](const Candidate& candidate, int64_t) {
    const bool package = candidate.mode->engine == EngineKind::kAotInductor;
    if (candidate.threads == 1) return package ? 1.05 : 1.0;
    return package ? 0.2 : 0.3;
  });
  const auto tuning = Tune(
      machine, {.space = {.cores = 2, .max_batch_size = 1, .modes = {kTorchScript, kPackage}}});
  ASSERT_TRUE(tuning.ok());
  EXPECT_EQ(tuning->measured.front().candidate.threads, 2);
  EXPECT_EQ(tuning->measured.front().candidate.mode->engine, EngineKind::kAotInductor);
}

TEST(ModelTuner, ModeThatCannotBeRunIsNotedAndHindersNobody) {
  SimulatedMachine machine(1, kQuiet, 4, [](const Candidate& candidate, int64_t rows) {
    return candidate.mode->bfloat16 ? 0 : Usual(candidate, rows);
  });
  const auto tuning = Tune(
      machine, {.space = {.cores = 2, .max_batch_size = 4, .modes = {kTorchScript, kBfloat16}}});
  ASSERT_TRUE(tuning.ok());
  EXPECT_EQ(*tuning->measured.front().candidate.mode, kTorchScript);
  EXPECT_THAT(std::string(tuning->measured.back().finding.status.message()),
              HasSubstr("can't be run"));
}

TEST(ModelTuner, ModelThatCannotBeRunAtAll) {
  SimulatedMachine machine(1, kQuiet, 4, [](const Candidate&, int64_t) { return 0; });
  const auto tuning =
      Tune(machine, {.space = {.cores = 2, .max_batch_size = 4, .modes = {kTorchScript}}});
  EXPECT_EQ(tuning.status().message(), "it can't be run so");
}

TEST(ModelTuner, OnlyWhatIsStillRunIsKept) {
  SimulatedMachine machine(1, kQuiet, 4, [](const Candidate& candidate, int64_t rows) {
    return Usual(candidate, rows) * (candidate.mode->engine == EngineKind::kAotInductor ? 0.5 : 1);
  });
  ASSERT_TRUE(
      Tune(machine, {.space = {.cores = 2, .max_batch_size = 4, .modes = {kTorchScript, kPackage}}})
          .ok());
  for (const Candidate& kept : machine.kept())
    EXPECT_EQ(kept.mode->engine, EngineKind::kAotInductor);
}

TEST(ModelTuner, OversubscribedIsShownAndNeverChosen) {
  SimulatedMachine machine(1, kQuiet, 4, [](const Candidate& candidate, int64_t rows) {
    // Here it would even pay.
    return Usual(candidate, rows) * (candidate.replicas * candidate.threads > 2 ? 0.1 : 1);
  });
  const auto tuning = Tune(
      machine,
      {.space = {.cores = 2, .max_batch_size = 4, .modes = {kTorchScript}}, .oversubscribe = true});
  ASSERT_TRUE(tuning.ok());
  const Candidate& best = tuning->measured.front().candidate;
  EXPECT_LE(best.replicas * best.threads, 2);
  ASSERT_EQ(tuning->oversubscribed.size(), 7);
  EXPECT_GT(tuning->oversubscribed.front().finding.ratio, 1);
}

TEST(ModelTuner, SloIsPredictedAndThenVerified) {
  SimulatedMachine machine(1, kQuiet, 16, Usual);
  double highest = 0;
  machine.p99_at_random_ = [&](double rate) {
    highest = std::max(highest, rate);
    return rate > 0.8 * highest ? absl::Milliseconds(60) : absl::Milliseconds(49);
  };
  const auto tuning = Tune(
      machine, {.space = {.cores = 2, .max_batch_size = 16, .modes = {kTorchScript}},
                .objective = {.goal = Objective::Goal::kSlo, .limit = absl::Milliseconds(50)}});
  ASSERT_TRUE(tuning.ok());
  ASSERT_TRUE(tuning->verified);
  EXPECT_EQ(tuning->measured.front().predicted_rate, highest);
  // At the predicted rate it was too slow, so it was lowered twice.
  EXPECT_NEAR(tuning->verified->rows_per_second, 0.85 * 0.85 * highest, 1e-6 * highest);
  EXPECT_EQ(tuning->verified->p99, absl::Milliseconds(49));
}

TEST(ModelTuner, SloThatNothingKeepsTakesTheFastest) {
  SimulatedMachine machine(1, kQuiet, 16, Usual);
  const auto tuning = Tune(
      machine, {.space = {.cores = 2, .max_batch_size = 16, .modes = {kTorchScript}},
                .objective = {.goal = Objective::Goal::kSlo, .limit = absl::Microseconds(10)}});
  ASSERT_TRUE(tuning.ok());
  EXPECT_FALSE(tuning->verified);
  EXPECT_EQ(tuning->measured.front().predicted_rate, 0);
}

TEST(ModelTuner, CurveGrowsWithTheCores) {
  ModelTuning tuning;
  const auto add = [&](int replicas, int threads, double rate) {
    Measured& measured = tuning.measured.emplace_back();
    measured.candidate.replicas = replicas;
    measured.candidate.threads = threads;
    measured.finding.runs = 1;
    measured.trial.rows_per_second = rate;
  };
  add(4, 1, 300);
  add(2, 1, 180);
  add(1, 2, 120);
  add(1, 1, 100);
  EXPECT_THAT(CurveOf(tuning, 4), ElementsAre(100, 180, DoubleNear(240, 1e-9), 300));
  EXPECT_EQ(BestWithin(tuning, 4).replicas, 4);
  EXPECT_EQ(BestWithin(tuning, 3).replicas, 3);
  EXPECT_EQ(BestWithin(tuning, 1).replicas, 1);
}

TEST(ModelTuner, WhatFailedAtLastIsNoPartOfTheCurve) {
  ModelTuning tuning;
  for (const double rate : {100.0, 500.0}) {
    Measured& measured = tuning.measured.emplace_back();
    measured.finding.runs = 2;
    measured.trial.rows_per_second = rate;
  }
  tuning.measured.back().finding.status = absl::InternalError("it raised");
  EXPECT_THAT(CurveOf(tuning, 1), ElementsAre(100));
}

// Random models on a noisy machine, with several modes: what is chosen is as good as the best
// within 5 %, mostly (96 of 100).
TEST(ModelTunerProperty, ChoosesWithinFivePerCentOfTheBest) {
  std::mt19937_64 random(TestSeed());
  constexpr int kModels = 200;
  int good = 0;
  for (int i = 0; i < kModels; ++i) {
    std::uniform_real_distribution<double> part;
    const double setup = 0.02 * part(random) * part(random);
    const double row = 0.001 + 0.01 * part(random) * part(random);
    const double parallel = part(random);
    const double crowded = 0.1 * part(random);
    const double package = 0.7 + 0.6 * part(random);
    const double bf16 = 0.5 + part(random);
    const auto time = [&](const Candidate& candidate, int64_t rows) {
      const double team = 1 - parallel + parallel / candidate.threads;
      const double others = 1 + crowded * (candidate.replicas - 1);
      return (setup + row * static_cast<double>(rows)) * team * others *
             (candidate.mode->engine == EngineKind::kAotInductor ? package : 1) *
             (candidate.mode->bfloat16 ? bf16 : 1) *
             (candidate.mode->wait == ThreadWait::kActive ? 0.97 : 1);
    };
    ModelTuner::Options options = {
        .space = {.cores = 8, .max_batch_size = 16, .modes = {kTorchScript, kPackage, kBfloat16}}};
    SimulatedMachine machine(random(), {}, 16, time);
    const auto tuning = Tune(machine, options);
    ASSERT_TRUE(tuning.ok());
    double best = 0;
    for (const ExecutionMode& mode : options.space.modes) {
      for (const Candidate& each : WithBatchSizes(WithWaiting(Layouts(options.space, mode)), 16)) {
        best = std::max(best, machine.TrueRate(each));
      }
    }
    good += machine.TrueRate(tuning->measured.front().candidate) >= 0.95 * best ? 1 : 0;
    EXPECT_LE(machine.clock().Now() - absl::UnixEpoch(), absl::Minutes(2));
  }
  std::printf("%d of %d models were tuned within 5 %%\n", good, kModels);
  EXPECT_GE(good, kModels * 90 / 100);
}

}  // namespace
}  // namespace millrace
