// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/measuring/candidates.h"
#include "server/measuring/measurer.h"
#include "server/measuring/search.h"

namespace millrace {

// What a model is to be best at.
struct Objective {
  enum class Goal {
    kThroughput,  // Rows per second under full load.
    kLatency,     // The p99 of one request at a time.
    kSlo,         // Requests per second that come at random, with their p99 within `limit`.
  };
  Goal goal = Goal::kThroughput;
  absl::Duration limit = absl::ZeroDuration();

  // "throughput", "latency" or "slo 50ms".
  std::string ToString() const;
};

// A candidate that was measured, or should have been.
struct Measured {
  Candidate candidate;
  Finding finding;  // Compared with the best of all; `candidate` of it means nothing here.
  Trial trial;      // The medians of its runs.
  // With Goal::kSlo, how many requests a second it is predicted to take.
  double predicted_rate = 0;

  // Whether it was run, and every time.
  bool is_sound() const { return finding.runs > 0 && finding.status.ok(); }
};

// What tuning one model has found.
struct ModelTuning {
  std::vector<Measured> measured;        // Best first; not empty.
  std::vector<Measured> oversubscribed;  // Only to show what they cost.
  bool certain = false;                  // See SearchResult.
  // With Goal::kSlo, the best of all under a load at random; where its p99 is above the limit, none
  // at which it is within was found.
  std::optional<Trial> verified;
};

// Finds the best way to run one model: first how (the engine and its modes, in the layout that runs
// without any plan), then in which layout and with which batches, and then how once more, in that
// layout. Confined to one thread.
class ModelTuner {
 public:
  struct Options {
    TuningSpace space;
    Objective objective = {};
    bool oversubscribe = false;  // Also measure what can't be chosen; see Oversubscribed().
    Search::Options search = {};
  };
  // Told before each run: what is measured.
  using Progress = std::function<void(const std::string& what)>;

  // What is referred to outlives the tuner.
  ModelTuner(Options options, const Clock& clock, Measurer& measurer, Progress progress);

  // Measures until the best is certain, at most until `deadline`. An error where the model can't be
  // run in any way.
  absl::StatusOr<ModelTuning> Tune(absl::Time deadline);

 private:
  // Searches among `candidates` and puts what was found before what was found until then.
  absl::Status SearchAmong(const std::vector<Candidate>& candidates, const std::string& what,
                           absl::Time deadline);
  // Runs a candidate as the objective says, notes what came, and returns its score.
  absl::StatusOr<double> Score(const Candidate& candidate, absl::Duration length);
  absl::StatusOr<double> PredictRate(const Candidate& candidate, const Trial& full,
                                     absl::Duration length);
  void Merge(const std::vector<Candidate>& candidates, const SearchResult& result);
  void MeasureOversubscribed(absl::Time deadline);
  void Verify(absl::Time deadline);
  Measured Describe(const Candidate& candidate, const Finding& finding) const;

  // What came of a candidate's runs.
  struct Record {
    Candidate candidate;
    std::vector<Trial> trials;
    std::vector<double> rates;
  };
  Record& RecordOf(const Candidate& candidate);

  const Options options_;
  const Clock& clock_;
  Measurer& measurer_;
  const Progress progress_;
  std::vector<Record> records_;
  ModelTuning tuning_;
};

// The layouts and batch sizes that are measured for an objective, run as `mode` says.
std::vector<Candidate> LayoutsAndBatches(const TuningSpace& space, const Objective& objective,
                                         const ExecutionMode& mode);

// Of what was measured, the best that uses no more than `cores` cores; its replicas are then as
// many as they have room for. The best of all where none does.
Candidate BestWithin(const ModelTuning& tuning, int cores);

// Rows per second of the best with at most 1, 2, … `cores` cores, for ShareCores().
std::vector<double> CurveOf(const ModelTuning& tuning, int cores);

}  // namespace millrace
