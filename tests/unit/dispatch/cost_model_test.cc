// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

// Batches of a known cost with noise, by a seed.
class Machine {
 public:
  explicit Machine(uint64_t seed) : random_(seed) {}

  // Runs batches of 1 to `most` rows.
  void Run(CostModel& model, int batches, int64_t most) {
    for (int i = 0; i < batches; ++i) {
      const int64_t rows = std::uniform_int_distribution<int64_t>(1, most)(random_);
      model.Observe(rows, Time(rows));
    }
  }

  absl::Duration Time(int64_t rows) {
    const double noise = std::normal_distribution<double>(1, spread)(random_);
    return (setup + rows * per_row) * std::max(0.1, noise);
  }

  absl::Duration setup = absl::Milliseconds(5);
  absl::Duration per_row = absl::Microseconds(400);
  double spread = 0.05;  // Of the time of a batch.

 private:
  std::mt19937_64 random_;
};

double Ratio(absl::Duration a, absl::Duration b) { return absl::FDivDuration(a, b); }

TEST(CostModel, KnowsNothingBeforeTheFirstBatch) {
  const CostModel model;
  EXPECT_FALSE(model.known());
  EXPECT_EQ(model.Predict(8), absl::ZeroDuration());
  EXPECT_EQ(model.Capacity(8), 0);
}

TEST(CostModel, PredictsTheFirstBatchAfterIt) {
  CostModel model;
  model.Observe(4, absl::Milliseconds(8));
  EXPECT_TRUE(model.known());
  EXPECT_NEAR(Ratio(model.Predict(4), absl::Milliseconds(8)), 1, 1e-6);
  EXPECT_NEAR(model.Capacity(4), 500, 1e-3);
}

TEST(CostModel, FindsTheCoefficientsUnderNoise) {
  const uint64_t seed = TestSeed();
  for (uint64_t i = 0; i < 200; ++i) {
    SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed + i);
    Machine machine(seed + i);
    machine.setup = absl::Microseconds(200) * static_cast<double>(i % 40);
    machine.spread = 0.02;
    CostModel model;
    machine.Run(model, 300, 32);
    const absl::Duration largest = machine.setup + 32 * machine.per_row;
    for (const int64_t rows : {1, 8, 16, 32}) {
      const absl::Duration error = model.Predict(rows) - (machine.setup + rows * machine.per_row);
      EXPECT_NEAR(Ratio(error, largest), 0, 0.05) << rows << " rows";
    }
    EXPECT_NEAR(Ratio(model.per_row(), machine.per_row), 1, 0.25);
  }
}

TEST(CostModel, IsNeverNegative) {
  const uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  for (int i = 0; i < 300; ++i) {
    CostModel model;
    for (int batch = 0; batch < 60; ++batch) {
      // Anything at all, also times that fall with the rows.
      model.Observe(std::uniform_int_distribution<int64_t>(-1, 64)(random),
                    absl::Microseconds(std::uniform_int_distribution<int64_t>(-5, 100000)(random)));
      ASSERT_GE(model.setup(), absl::ZeroDuration());
      ASSERT_GE(model.per_row(), absl::ZeroDuration());
      ASSERT_GE(model.deviation(), absl::ZeroDuration());
      ASSERT_TRUE(std::isfinite(model.PredictNs(64)));
    }
  }
}

TEST(CostModel, FollowsAStepWithin50Batches) {
  const uint64_t seed = TestSeed();
  for (uint64_t i = 0; i < 100; ++i) {
    SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed + i);
    Machine machine(seed + i);
    machine.spread = 0.02;
    CostModel model;
    machine.Run(model, 200, 16);
    const double factor = i % 2 == 0 ? 3.0 : 1.0 / 3;
    machine.setup *= factor;
    machine.per_row *= factor;
    machine.Run(model, 50, 16);
    for (const int64_t rows : {1, 8, 16}) {
      EXPECT_NEAR(Ratio(model.Predict(rows), machine.setup + rows * machine.per_row), 1, 0.15);
    }
  }
}

TEST(CostModel, OneStrayChangesNothing) {
  Machine machine(1);
  CostModel model;
  machine.Run(model, 100, 16);
  const absl::Duration before = model.Predict(16);
  model.Observe(8, absl::Seconds(3));
  EXPECT_EQ(model.Predict(16), before);
  model.Observe(16, machine.Time(16));
  EXPECT_NEAR(Ratio(model.Predict(16), before), 1, 0.05);
}

TEST(CostModel, KeepsTheRatioWhereAllBatchesHaveOneSize) {
  Machine machine(2);
  machine.spread = 0.01;
  CostModel model;
  machine.Run(model, 200, 16);
  const double ratio = Ratio(model.setup(), model.per_row());
  for (int i = 0; i < 100; ++i) model.Observe(16, machine.Time(16));
  machine.setup *= 2;
  machine.per_row *= 2;
  for (int i = 0; i < 300; ++i) model.Observe(16, machine.Time(16));
  EXPECT_NEAR(Ratio(model.Predict(16), machine.setup + 16 * machine.per_row), 1, 0.03);
  EXPECT_NEAR(Ratio(model.setup(), model.per_row()) / ratio, 1, 0.3);
}

TEST(CostModel, TellsTheSpreadAroundItsPrediction) {
  Machine machine(3);
  machine.spread = 0.1;
  CostModel model;
  machine.Run(model, 400, 16);
  const absl::Duration typical = 0.1 * (machine.setup + 8 * machine.per_row);
  EXPECT_GT(model.deviation(), typical / 3);
  EXPECT_LT(model.deviation(), typical * 3);
}

}  // namespace
}  // namespace millrace
