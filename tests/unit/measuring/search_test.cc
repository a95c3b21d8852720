// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "server/measuring/median.h"
#include "tests/fakes/seed.h"
#include "tests/unit/measuring/simulated_machine.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr SimulatedMachine::Noise kQuiet = {.run = 0, .drift = 0, .disturbed = 0};

double Never(const Candidate&, int64_t) { return 1; }

// Searches among candidates whose scores are known, on a machine with noise.
absl::StatusOr<SearchResult> Find(SimulatedMachine& machine, const std::vector<double>& scores,
                                  absl::Duration budget, const Search::Left& left = nullptr) {
  Search search(
      {}, machine.clock(),
      [&](size_t candidate, absl::Duration length) -> absl::StatusOr<double> {
        if (scores[candidate] <= 0) return absl::InternalError("it can't be run");
        const double score = machine.Disturb(scores[candidate], length);
        machine.clock().Advance(length + absl::Milliseconds(15));
        return score;
      },
      left);
  return search.Find(scores.size(), machine.clock().Now() + budget);
}

TEST(Median, IsBetweenTheTwoInTheMiddle) {
  EXPECT_EQ(Median(std::vector<double>{3, 1, 2}), 2);
  EXPECT_EQ(Median(std::vector<double>{4, 1, 3, 2}), 2.5);
}

TEST(Median, Percentile99IsOneThatWasThere) {
  std::vector<int> values;
  for (int i = 1; i <= 200; ++i) values.push_back(i);
  EXPECT_EQ(Percentile99(values), 198);
  EXPECT_EQ(Percentile99(std::vector<int>{7}), 7);
}

TEST(Search, StopsAsSoonAsTheWinnerIsCertain) {
  SimulatedMachine machine(1, kQuiet, 0, Never);
  const auto result = Find(machine, {10, 30, 20}, absl::Minutes(10));
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->certain);
  EXPECT_EQ(result->ranking[0].candidate, 1);
  EXPECT_EQ(result->ranking[1].candidate, 2);
  EXPECT_NEAR(result->ranking[1].ratio, 2.0 / 3, 1e-9);
  EXPECT_EQ(result->ranking[0].ratio, 1);
  EXPECT_LT(machine.clock().Now() - absl::UnixEpoch(), absl::Seconds(20));
}

TEST(Search, KeepsTheBudget) {
  SimulatedMachine machine(1, {}, 0, Never);
  // All alike: nothing is ever certain but that it doesn't matter.
  const auto result = Find(machine, std::vector<double>(20, 5.0), absl::Seconds(10));
  ASSERT_TRUE(result.ok());
  EXPECT_LE(machine.clock().Now() - absl::UnixEpoch(), absl::Seconds(10));
}

TEST(Search, FindsSomethingHoweverShortTheTimeIs) {
  SimulatedMachine machine(1, kQuiet, 0, Never);
  const auto result = Find(machine, {10, 30}, absl::ZeroDuration());
  ASSERT_TRUE(result.ok());
  EXPECT_FALSE(result->certain);
  EXPECT_EQ(result->ranking[0].candidate, 0);
  EXPECT_EQ(result->ranking[1].runs, 0);
}

TEST(Search, WhoCannotBeRunIsLeftOutWithTheReason) {
  SimulatedMachine machine(1, kQuiet, 0, Never);
  const auto result = Find(machine, {10, 0, 5}, absl::Seconds(10));
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->certain);
  EXPECT_EQ(result->ranking[0].candidate, 0);
  EXPECT_EQ(result->ranking[2].candidate, 1);
  EXPECT_THAT(std::string(result->ranking[2].status.message()), HasSubstr("can't be run"));
}

TEST(Search, NobodyCanBeRun) {
  SimulatedMachine machine(1, kQuiet, 0, Never);
  const auto result = Find(machine, {0, 0}, absl::Seconds(10));
  EXPECT_EQ(result.status().message(), "it can't be run");
}

TEST(Search, TellsWhoIsLeft) {
  SimulatedMachine machine(1, kQuiet, 0, Never);
  std::vector<std::vector<size_t>> left;
  ASSERT_TRUE(Find(machine, {1, 2, 3}, absl::Minutes(1), [&](const std::vector<size_t>& those) {
                left.push_back(those);
              }).ok());
  ASSERT_FALSE(left.empty());
  EXPECT_THAT(left.back(), ElementsAre(2));
}

TEST(Search, MachineThatSlowsDownMisleadsNobody) {
  SimulatedMachine machine(1, {.run = 0, .drift = 1.0, .period = 7, .disturbed = 0}, 0, Never);
  const auto result = Find(machine, {8, 10, 9}, absl::Seconds(60));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->ranking[0].candidate, 1);
}

// Random candidates on a noisy machine: what is chosen is as good as the best within 5 %, mostly
// (98 of 100).
TEST(SearchProperty, ChoosesWithinFivePerCentOfTheBest) {
  std::mt19937_64 random(TestSeed());
  constexpr int kSearches = 200;
  int good = 0;
  for (int i = 0; i < kSearches; ++i) {
    std::vector<double> scores(std::uniform_int_distribution<size_t>(2, 60)(random));
    for (double& score : scores) {
      score = 1000 * std::exp(std::normal_distribution<double>(0, 0.4)(random));
    }
    const double best = *std::max_element(scores.begin(), scores.end());
    SimulatedMachine machine(random(), {}, 0, Never);
    const auto result = Find(machine, scores, absl::Seconds(60));
    ASSERT_TRUE(result.ok());
    good += scores[result->ranking.front().candidate] >= 0.95 * best ? 1 : 0;
  }
  std::printf("%d of %d searches chose within 5 %%\n", good, kSearches);
  EXPECT_GE(good, kSearches * 95 / 100);
}

}  // namespace
}  // namespace millrace
