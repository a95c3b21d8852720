// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/measuring/median.h"

namespace millrace {
namespace {

// Rounds until half of those that are left leave.
constexpr size_t kRoundsOfARung = 3;
// "Surely": so many standard errors.
constexpr double kSurely = 3.0;
// The noise of a run while too few were made to tell, and the least that is believed.
constexpr double kUnknownNoise = 0.08;
constexpr double kLeastNoise = 0.005;
constexpr size_t kEnoughResiduals = 6;
// From the median of absolute deviations to a standard deviation, and from a standard deviation to
// the standard error of a median, where values are distributed normally.
constexpr double kMadToDeviation = 1.4826;
constexpr double kMedianToMean = 1.2533;

}  // namespace

Search::Search(Options options, const Clock& clock, Run run, Left left)
    : options_(options), clock_(clock), run_(std::move(run)), left_(std::move(left)) {}

absl::StatusOr<SearchResult> Search::Find(size_t candidates, absl::Time deadline) {
  contenders_.clear();
  in_.clear();
  besides_.clear();
  for (size_t i = 0; i < candidates; ++i) {
    contenders_.push_back({.candidate = i, .scores = {}, .status = absl::OkStatus()});
    in_.push_back(i);
  }
  bool backwards = false;
  bool certain = false;
  for (bool goes_on = true; goes_on;) {
    const absl::Duration length = RunLength(deadline);
    for (size_t round = 0; round < kRoundsOfARung && goes_on; ++round) {
      goes_on = RunRound(length, backwards, deadline) && !in_.empty();
      backwards = !backwards;
      if (!goes_on) break;
      Prune(in_.size());
      certain = Certain();
      goes_on = !certain;
    }
    if (goes_on) Prune(std::max<size_t>(2, (in_.size() + 1) / 2));
  }
  SearchResult result = Result(certain);
  if (!result.ranking.empty()) return result;
  if (!contenders_.front().status.ok()) return contenders_.front().status;
  return absl::DeadlineExceededError("there was no time to measure anything");
}

absl::Duration Search::RunLength(absl::Time deadline) const {
  // The time that is left is shared evenly by this rung and those to come.
  const auto left = static_cast<double>(in_.size());
  const double rungs = std::max(1.0, std::ceil(std::log2(left)));
  const absl::Duration each =
      (deadline - clock_.Now()) / (rungs * left * static_cast<double>(kRoundsOfARung));
  return std::clamp(each - Beside(), options_.shortest_run, options_.longest_run);
}

absl::Duration Search::Beside() const {
  return besides_.empty() ? absl::ZeroDuration() : Median(besides_);
}

bool Search::RunRound(absl::Duration length, bool backwards, absl::Time deadline) {
  std::vector<size_t> order = in_;
  if (backwards) std::reverse(order.begin(), order.end());
  for (const size_t index : order) {
    const absl::Time begin = clock_.Now();
    // Something must be found, however short the time is.
    if (!besides_.empty() && begin + length + Beside() > deadline) return false;
    Contender& contender = contenders_[index];
    const absl::StatusOr<double> score = run_(contender.candidate, length);
    besides_.push_back(std::max(absl::ZeroDuration(), clock_.Now() - begin - length));
    if (score.ok()) {
      contender.scores.push_back(std::log(*score));
      continue;
    }
    contender.status = score.status();
    in_.erase(std::find(in_.begin(), in_.end(), index));
  }
  return true;
}

std::vector<double> Search::Ratios(const Contender& contender, const Contender& with) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(contender.scores.size(), with.scores.size()); ++i) {
    ratios.push_back(contender.scores[i] - with.scores[i]);
  }
  return ratios;
}

double Search::MedianRatio(const Contender& contender, const Contender& with) {
  return Median(Ratios(contender, with));
}

double Search::Noise(const Contender& with) const {
  std::vector<double> residuals;
  for (const Contender& contender : contenders_) {
    const std::vector<double> ratios = Ratios(contender, with);
    if (&contender == &with || ratios.size() < 2) continue;
    const double median = Median(ratios);
    const auto rounds = static_cast<double>(ratios.size());
    for (const double ratio : ratios) {
      residuals.push_back(std::abs(ratio - median) * std::sqrt(rounds / (rounds - 1)));
    }
  }
  if (residuals.empty()) return kUnknownNoise;
  const double noise = std::max(kLeastNoise, kMadToDeviation * Median(residuals));
  return residuals.size() < kEnoughResiduals ? std::max(noise, kUnknownNoise) : noise;
}

double Search::Doubt(const Contender& contender, double noise) {
  return kSurely * kMedianToMean * noise / std::sqrt(static_cast<double>(contender.scores.size()));
}

const Search::Contender* Search::BestOf(const std::vector<size_t>& indices) const {
  const Contender* best = nullptr;
  for (const size_t index : indices) {
    const Contender& each = contenders_[index];
    if (each.scores.empty()) continue;
    if (best == nullptr || MedianRatio(each, *best) > 0) best = &each;
  }
  return best;
}

void Search::Prune(size_t most) {
  const Contender& best = *BestOf(in_);
  const double noise = Noise(best);
  std::vector<std::pair<double, size_t>> ranked;
  for (const size_t index : in_) {
    const double median = MedianRatio(contenders_[index], best);
    if (median + Doubt(contenders_[index], noise) >= 0) ranked.emplace_back(-median, index);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  if (ranked.size() > most) ranked.resize(most);
  if (ranked.size() == in_.size()) return;
  in_.clear();
  for (const auto& [margin, index] : ranked) in_.push_back(index);
  std::sort(in_.begin(), in_.end());  // As they came: those that are alike run one after the other.
  if (left_) left_(in_);
}

bool Search::Certain() const {
  const Contender& best = *BestOf(in_);
  const double noise = Noise(best);
  const double most = std::log1p(options_.tolerance);
  return std::all_of(in_.begin(), in_.end(), [&](size_t index) {
    const Contender& each = contenders_[index];
    return &each == &best || MedianRatio(each, best) + Doubt(each, noise) < most;
  });
}

SearchResult Search::Result(bool certain) const {
  std::vector<size_t> sound;
  for (size_t i = 0; i < contenders_.size(); ++i) {
    if (contenders_[i].status.ok()) sound.push_back(i);
  }
  const Contender* best = BestOf(in_);
  if (best == nullptr) best = BestOf(sound);  // Those that were left failed at last.
  SearchResult result = {.ranking = {}, .certain = certain};
  if (best == nullptr) return result;
  const double noise = Noise(*best);
  for (const Contender& each : contenders_) {
    Finding& finding =
        result.ranking.emplace_back(Finding{.candidate = each.candidate,
                                            .runs = static_cast<int>(each.scores.size()),
                                            .status = each.status});
    if (each.scores.empty()) continue;
    const double median = MedianRatio(each, *best);
    const double doubt = &each == best ? 0 : Doubt(each, noise);
    finding.ratio = std::exp(median);
    finding.low = std::exp(median - doubt);
    finding.high = std::exp(median + doubt);
  }
  const auto rank = [best](const Finding& each) {
    if (each.candidate == best->candidate) return 0;
    if (!each.status.ok()) return 3;
    return each.runs > 0 ? 1 : 2;
  };
  std::stable_sort(result.ranking.begin(), result.ranking.end(),
                   [rank](const Finding& a, const Finding& b) {
                     return rank(a) != rank(b) ? rank(a) < rank(b) : a.ratio > b.ratio;
                   });
  return result;
}

}  // namespace millrace
