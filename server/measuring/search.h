// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"

namespace millrace {

// What is known of a candidate after a search.
struct Finding {
  size_t candidate = 0;
  int runs = 0;              // That were measured; 0: the time was over before.
  absl::Status status = {};  // Not OK: why it can't be run.
  // Its score as a part of the winner's, as measured in the same rounds, and between which bounds
  // it lies, most probably.
  double ratio = 0;
  double low = 0;
  double high = 0;
};

struct SearchResult {
  std::vector<Finding> ranking;  // The winner first, those that failed or weren't run last.
  // Nobody can be better than the winner by more than the tolerance, as far as can be told.
  bool certain = false;
};

// Finds the candidate of the highest score by measuring them again and again in short runs.
//
// In each round every candidate that is left runs once, in turn forwards and backwards, so that a
// machine that becomes slower slows all alike; compared are ratios of scores of the same round, by
// their median, since others disturb single runs. Whoever is worse than the best so far beyond
// doubt leaves, and after every three rounds the worse half leaves in any case; those that are left
// share the time, so the fewer they are, the longer they run.
class Search {
 public:
  struct Options {
    absl::Duration shortest_run = absl::Milliseconds(100);
    absl::Duration longest_run = absl::Seconds(2);
    double tolerance = 0.02;  // A difference that isn't worth more time.
  };
  // Runs a candidate for about so long and returns its score, above 0; more is better.
  using Run = std::function<absl::StatusOr<double>(size_t candidate, absl::Duration length)>;
  // Told whenever candidates have left: those that are left.
  using Left = std::function<void(const std::vector<size_t>& candidates)>;

  Search(Options options, const Clock& clock, Run run, Left left);

  // Searches among the candidates 0 to `candidates` - 1, until `deadline` at the latest, but for
  // the run that goes on then. Who comes first is measured first, so the most promising should. An
  // error where none of them could be run, which is the first one's.
  absl::StatusOr<SearchResult> Find(size_t candidates, absl::Time deadline);

 private:
  struct Contender {
    size_t candidate;
    std::vector<double> scores;  // Logarithms, one for each round.
    absl::Status status;
  };

  // Runs everybody who is in once; false where the deadline came first.
  bool RunRound(absl::Duration length, bool backwards, absl::Time deadline);
  absl::Duration RunLength(absl::Time deadline) const;
  absl::Duration Beside() const;
  // The scores of a contender as parts of another's, in the rounds in which both ran. Logarithms.
  static std::vector<double> Ratios(const Contender& contender, const Contender& with);
  static double MedianRatio(const Contender& contender, const Contender& with);
  // The standard deviation of such ratios.
  double Noise(const Contender& with) const;
  // By how much a median may be wrong, most probably.
  static double Doubt(const Contender& contender, double noise);
  // Null where none of them has run.
  const Contender* BestOf(const std::vector<size_t>& indices) const;
  // Drops whoever is surely worse than the best, and the worst beyond `most`. REQUIRES: those that
  // are in have run.
  void Prune(size_t most);
  bool Certain() const;
  SearchResult Result(bool certain) const;

  const Options options_;
  const Clock& clock_;
  const Run run_;
  const Left left_;
  std::vector<Contender> contenders_;
  std::vector<size_t> in_;  // Indices of those that are left, ascending.
  // What each run took beside its length. The median counts: the first run of a kind may load a
  // model.
  std::vector<absl::Duration> besides_;
};

}  // namespace millrace
