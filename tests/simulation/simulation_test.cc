// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whether the simulator itself is right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/simulation/event_loop.h"
#include "tests/simulation/experiment.h"
#include "tests/simulation/load.h"
#include "tests/simulation/oracles.h"
#include "tests/simulation/report.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr absl::Duration kMs = absl::Milliseconds(1);
constexpr BatchTime kTime = {absl::Milliseconds(5), absl::Microseconds(100)};

// ---- Virtual time ----

class Noted final : public Actor {
 public:
  void Act(uint64_t what) override { noted.push_back(what); }
  std::vector<uint64_t> noted;
};

TEST(EventLoop, EventsHappenInTheOrderOfTimeThenOfSchedulingTimersAfterThem) {
  EventLoop loop;
  Noted actor;
  const absl::Time begin = loop.now();
  loop.timer().Schedule(begin + kMs, [&] { actor.Act(4); });
  loop.At(begin + 2 * kMs, &actor, 5);
  loop.At(begin + kMs, &actor, 2);
  loop.At(begin + kMs, &actor, 3);
  loop.At(begin, &actor, 1);
  loop.RunUntil(begin + kMs);
  EXPECT_THAT(actor.noted, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(loop.now(), begin + kMs);
  EXPECT_FALSE(loop.RunToEnd(begin + kMs));
  EXPECT_TRUE(loop.RunToEnd(begin + 3 * kMs));
  EXPECT_THAT(actor.noted, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(loop.now(), begin + 2 * kMs);
  EXPECT_EQ(loop.steps(), 5u);
}

// ---- Loads ----

TEST(Load, PoissonClientsSendAtTheirRateTogether) {
  Experiment experiment({}, {Poisson(20, 1000)}, 1);
  ASSERT_TRUE(experiment.Run({.measured = absl::Seconds(20)}).ok());
  EXPECT_NEAR(static_cast<double>(experiment.SentByAll().requests), 20'000, 3 * 142);
}

TEST(Load, BurstsSendDuringTheirShareOfTheTime) {
  Load load = Poisson(50, 2000);
  load.on = Exponential(20 * kMs);
  load.off = Exponential(80 * kMs);
  Experiment experiment({}, {load}, 1);
  ASSERT_TRUE(experiment.Run({.measured = absl::Seconds(20)}).ok());
  EXPECT_NEAR(static_cast<double>(experiment.SentByAll().requests), 0.2 * 40'000, 400);
}

TEST(Load, ClosedLoopHasItsWindowOnTheWayAndNoMore) {
  Load load;
  load.window = 3;
  load.think = About(2 * kMs);
  Experiment experiment({.shapes = {kTime}}, {load}, 1);
  ASSERT_TRUE(experiment.Run({.measured = absl::Seconds(1)}).ok());
  std::vector<std::pair<absl::Time, int>> changes;
  for (const Entry& entry : experiment.entries()) {
    changes.emplace_back(entry.sent, 1);
    changes.emplace_back(entry.answered, -1);
  }
  std::sort(changes.begin(), changes.end());
  int under_way = 0;
  int most = 0;
  for (const auto& [time, change] : changes) most = std::max(most, under_way += change);
  EXPECT_EQ(most, 3);
}

TEST(Load, HeavyTailsStayInTheirBoundsAndReachThem) {
  Random random(1);
  const DrawCount rows = HeavyTail(48);
  int ones = 0;
  int mosts = 0;
  for (int i = 0; i < 10'000; ++i) {
    const int64_t drawn = rows(random);
    ASSERT_GE(drawn, 1);
    ASSERT_LE(drawn, 48);
    ones += drawn == 1 ? 1 : 0;
    mosts += drawn == 48 ? 1 : 0;
  }
  EXPECT_NEAR(ones, 10'000 * 0.565, 200);   // 1 - 2^-1.2.
  EXPECT_NEAR(mosts, 10'000 * 0.0096, 40);  // 48^-1.2.
}

TEST(Load, OpenLoadsDependOnTheSeedAloneNotOnTheModel) {
  const auto sent = [](const BatchTime& time, uint64_t seed) {
    Load load = Poisson(5, 500);
    load.rows = HeavyTail(8);
    Experiment experiment({.shapes = {time}}, {load}, seed);
    EXPECT_TRUE(experiment.Run({.measured = absl::Seconds(1)}).ok());
    std::vector<std::pair<absl::Time, int64_t>> all;
    for (const Entry& entry : experiment.entries()) all.emplace_back(entry.sent, entry.rows);
    return all;
  };
  EXPECT_EQ(sent(kTime, 1), sent({kMs, kMs}, 1));
  EXPECT_NE(sent(kTime, 1), sent(kTime, 2));
}

TEST(Load, StreamsReadNoMoreWhileARequestWaitsAtTheDoor) {
  SimulatedModel::Options model;
  model.dispatch.max_queue_rows = 4;
  Load load;
  load.window = 200;
  Experiment experiment(model, {load}, 1);
  ASSERT_TRUE(experiment.Run({.measured = absl::Seconds(1)}).ok());
  EXPECT_EQ(experiment.SentByAll().ok, experiment.SentByAll().requests);
  EXPECT_GT(experiment.SentByAll().requests, 100u);
}

// ---- The model ----

TEST(SimulatedModel, RequestAloneTakesTheTimeOfABatchOfOne) {
  Load load;
  load.think = About(kMs);
  Experiment experiment({.shapes = {kTime}}, {load}, 1);
  ASSERT_TRUE(experiment.Run({.measured = absl::Seconds(1)}).ok());
  const Summary sent = experiment.SentByAll();
  EXPECT_NEAR(sent.mean_ms, 5.1, 1e-9);
  EXPECT_NEAR(sent.most_ms, 5.1, 1e-9);
  EXPECT_NEAR(experiment.RowsPerSecond(), 1000 / 6.1, 2);
}

TEST(SimulatedModel, EachShapeTakesItsOwnTime) {
  Load load;
  load.shape = Always(1);
  load.think = About(kMs);
  Experiment experiment({.shapes = {kTime, {kMs, kMs}}}, {load}, 1);
  ASSERT_TRUE(experiment.Run({.measured = absl::Seconds(1)}).ok());
  EXPECT_NEAR(experiment.SentByAll().mean_ms, 2, 1e-9);
}

TEST(SimulatedModel, NoiseSpreadsTheTimesAroundTheirMedian) {
  Load load;
  load.think = About(kMs);
  Experiment experiment({.shapes = {kTime}, .noise = 0.1}, {load}, 1);
  ASSERT_TRUE(experiment.Run({.measured = absl::Seconds(20)}).ok());
  EXPECT_NEAR(experiment.SentByAll().p50_ms, 5.1, 0.1);
  EXPECT_NEAR(experiment.SentByAll().p99_ms, 5.1 * 1.26, 0.15);  // exp(2.33 · 0.1).
}

// Mean latency of Poisson arrivals where a free server takes all that wait: at most, and in
// practice nearly, min(φ0, φ1) (Inoue, "Queueing analysis of GPU-based inference servers with
// dynamic batching: A closed-form characterization", 2021).
TEST(SimulatedModel, EagerBatchingHasTheMeanLatencyOfTheory) {
  const double per_row = 0.1;  // All in milliseconds.
  const double setup = 1;
  for (const double load : {0.1, 0.3, 0.5, 0.7}) {
    const double rate = load / per_row;
    const double phi0 = (per_row + setup) / (2 * (1 - rate * per_row)) *
                        (1 + 2 * rate * setup + (1 - rate * setup) / (1 + rate * per_row));
    const double phi1 = 1.5 * setup / (1 - rate * per_row) +
                        per_row / 2 * (rate * per_row + 2) / (1 - rate * rate * per_row * per_row);
    SimulatedModel::Options model;
    model.shapes = {{kMs, absl::Microseconds(100)}};
    model.max_batch_size = 4096;
    model.dispatch.max_queue_rows = 100'000;
    Experiment experiment(model, {Poisson(10, 1000 * rate)}, 1);
    ASSERT_TRUE(experiment.Run({.measured = absl::Seconds(5)}).ok());
    const double bound = std::min(phi0, phi1);
    EXPECT_LE(experiment.SentByAll().mean_ms, 1.03 * bound) << load;
    EXPECT_GE(experiment.SentByAll().mean_ms, 0.9 * bound) << load;
  }
}

TEST(Experiment, IsTheSameForTheSameSeed) {
  const auto answered = [] {
    SimulatedModel::Options model;
    model.noise = 0.2;
    model.replicas = 2;
    Load closed;
    closed.clients = 10;
    closed.think = Exponential(kMs);
    Experiment experiment(model, {Poisson(5, 500), closed}, 7);
    EXPECT_TRUE(experiment.Run({.measured = absl::Seconds(1)}).ok());
    std::vector<std::pair<int, absl::Time>> all;
    for (const Entry& entry : experiment.entries()) all.emplace_back(entry.client, entry.answered);
    return all;
  };
  EXPECT_EQ(answered(), answered());
}

// ---- Figures ----

TEST(Summary, CountsAndRanksTheLatenciesOfWhatIsOk) {
  std::vector<Entry> entries;
  for (int i = 1; i <= 100; ++i) {
    entries.push_back({.sent = absl::UnixEpoch(),
                       .deadline = absl::UnixEpoch() + 90 * kMs,
                       .answered = absl::UnixEpoch() + i * kMs,
                       .code = absl::StatusCode::kOk});
  }
  entries.push_back({.sent = absl::UnixEpoch(),
                     .answered = absl::UnixEpoch(),
                     .code = absl::StatusCode::kDeadlineExceeded});
  const Summary all = Summarise(entries, [](const Entry&) { return true; });
  EXPECT_EQ(all.requests, 101u);
  EXPECT_EQ(all.ok, 100u);
  EXPECT_EQ(all.good, 90u);
  EXPECT_DOUBLE_EQ(all.mean_ms, 50.5);
  EXPECT_DOUBLE_EQ(all.p50_ms, 50);
  EXPECT_DOUBLE_EQ(all.p99_ms, 99);
  EXPECT_DOUBLE_EQ(all.most_ms, 100);
  EXPECT_DOUBLE_EQ(all.missed(), 11.0 / 101);
  EXPECT_EQ(Summarise(entries, [](const Entry&) { return false; }).requests, 0u);
}

TEST(JainIndex, IsOneWhereAllAreEqualAndOneNthWhereOneHasAll) {
  EXPECT_DOUBLE_EQ(JainIndex({3, 3, 3, 3}), 1);
  EXPECT_DOUBLE_EQ(JainIndex({0, 5, 0, 0}), 0.25);
  EXPECT_DOUBLE_EQ(JainIndex({0, 0}), 0);
}

TEST(Report, TellsGoalsThatAreMissedAndWritesJson) {
  Report report;
  report.Add({"a", "b", "missing", 0.5, "%", AtLeast(0.98)});
  report.Add({"a", "b", "meeting", 0.5, "%", AtMost(0.98)});
  report.Add({"a", "b", "told", 12345.6, "/s"});
  report.Plot({"p", "s", 1, 2.5});
  EXPECT_THAT(report.Table(), HasSubstr("≥ 0.98  MISSED"));
  EXPECT_THAT(report.Table(), HasSubstr("≤ 0.98  met"));
  EXPECT_THAT(report.Table(), HasSubstr("told     12346  /s"));
  EXPECT_THAT(report.Json(), HasSubstr(R"("value":0.5,"unit":"%","goal":"≥ 0.98","met":false})"));
  EXPECT_THAT(report.Json(), HasSubstr(R"({"plot":"p","series":"s","x":1,"y":2.5})"));
}

// ---- Oracles ----

// Requests by when they are sent and by when they must be answered, in milliseconds.
std::vector<Entry> Requests(const std::vector<std::pair<double, double>>& times) {
  std::vector<Entry> entries;
  for (const auto& [sent, deadline] : times) {
    Entry& entry = entries.emplace_back();
    entry.sent = absl::UnixEpoch() + absl::Milliseconds(sent);
    entry.deadline = absl::UnixEpoch() + absl::Milliseconds(deadline);
  }
  return entries;
}

// When they were answered, in milliseconds; -1 where they were given up.
std::vector<double> Answered(const std::vector<Entry>& entries) {
  std::vector<double> times;
  for (const Entry& entry : entries) {
    times.push_back(entry.ok() ? absl::ToDoubleMilliseconds(entry.answered - absl::UnixEpoch())
                               : -1);
  }
  return times;
}

constexpr BatchTime kSlow = {absl::Milliseconds(10), absl::Milliseconds(2)};

TEST(EarliestDeadlineFirst, ServesTheMostUrgentFirst) {
  const auto served = EarliestDeadlineFirst(Requests({{0, 100}, {1, 90}, {2, 40}, {3, 60}}),
                                            {.max_batch_size = 2, .shapes = {kSlow}},
                                            TooSlowForTheFirst::kCutTheBatch);
  EXPECT_THAT(Answered(served), ElementsAre(12, 38, 26, 26));  // 1: 12 + 14 + 12.
}

TEST(EarliestDeadlineFirst, GivesUpWhatCannotBeInTime) {
  const auto served = EarliestDeadlineFirst(Requests({{0, 12}, {1, 23}, {1, 60}}),
                                            {.max_batch_size = 4, .shapes = {kSlow}},
                                            TooSlowForTheFirst::kCutTheBatch);
  EXPECT_THAT(Answered(served), ElementsAre(12, -1, 24));
}

TEST(EarliestDeadlineFirst, CutsTheBatchForItsMostUrgentMembersOrGivesThemUp) {
  const auto requests = Requests({{0, 12}, {1, 27}, {1, 40}, {1, 40}});
  const OracleServer server = {.max_batch_size = 4, .shapes = {kSlow}};
  // At 12 ms a batch of two ends at 26 ms and one of three at 28 ms.
  EXPECT_THAT(Answered(EarliestDeadlineFirst(requests, server, TooSlowForTheFirst::kCutTheBatch)),
              ElementsAre(12, 26, 26, 38));
  EXPECT_THAT(Answered(EarliestDeadlineFirst(requests, server, TooSlowForTheFirst::kGiveThemUp)),
              ElementsAre(12, -1, 26, 26));
}

TEST(EarliestDeadlineFirst, LosesTheFewer) {
  const OracleServer server = {.max_batch_size = 4, .shapes = {kSlow}};
  const auto patient = Requests({{0, 12}, {1, 27}, {1, 40}, {1, 40}});
  EXPECT_THAT(Answered(EarliestDeadlineFirst(patient, server, TooSlowForTheFirst::kLoseTheFewer)),
              ElementsAre(12, 26, 26, 38));
  const auto urgent = Requests({{0, 12}, {1, 25}, {1, 28}, {1, 28}});
  EXPECT_THAT(Answered(EarliestDeadlineFirst(urgent, server, TooSlowForTheFirst::kLoseTheFewer)),
              ElementsAre(12, -1, 26, 26));
}

TEST(EarliestDeadlineFirst, UsesAllReplicas) {
  const auto served = EarliestDeadlineFirst(Requests({{0, 100}, {1, 100}, {2, 100}}),
                                            {.replicas = 2, .max_batch_size = 1, .shapes = {kSlow}},
                                            TooSlowForTheFirst::kCutTheBatch);
  EXPECT_THAT(Answered(served), ElementsAre(12, 13, 24));
}

TEST(HeadOfLineBatching, EndsABatchAtTheFirstOtherShape) {
  auto requests = Requests({{0, 999}, {1, 999}, {1, 999}, {1, 999}, {1, 999}});
  requests[3].shape = 1;
  const auto served =
      HeadOfLineBatching(requests, {.max_batch_size = 8, .shapes = {kSlow, {20 * kMs, kMs}}});
  EXPECT_THAT(Answered(served), ElementsAre(12, 26, 26, 47, 59));
}

}  // namespace
}  // namespace millrace
