// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/model_tuner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/measuring/median.h"
#include "server/measuring/open_loop.h"

namespace millrace {
namespace {

// Parts of the time for each stage; what one doesn't need is left to the next.
constexpr double kModesPart = 0.25;
constexpr double kLayoutsPart = 0.75;  // Of what is left then, where modes are tried once more.
constexpr double kVerifyPart = 0.2;
constexpr double kOversubscribedPart = 0.15;
// A mode that is so much worse in the first layout isn't tried again in the best one.
constexpr double kHopeless = 0.8;
// Of the score of those that can't keep a limit, so that the fastest of them is the best.
constexpr double kMissesLimit = 1e-6;
// Until a rate is found at which p99 is within the limit.
constexpr int kVerifications = 4;
constexpr double kSlower = 0.85;
// Observations of a batch size from which its cost is fitted.
constexpr int kObservations = 20;

Trial MedianOf(const std::vector<Trial>& trials) {
  std::vector<double> rates;
  std::vector<absl::Duration> p50, p99;
  for (const Trial& trial : trials) {
    rates.push_back(trial.rows_per_second);
    p50.push_back(trial.p50);
    p99.push_back(trial.p99);
  }
  return {.rows_per_second = Median(rates), .p50 = Median(p50), .p99 = Median(p99)};
}

}  // namespace

std::string Objective::ToString() const {
  switch (goal) {
    case Goal::kThroughput:
      return "throughput";
    case Goal::kLatency:
      return "latency";
    case Goal::kSlo:
      return absl::StrCat("slo ", absl::FormatDuration(limit));
  }
  return "";
}

ModelTuner::ModelTuner(Options options, const Clock& clock, Measurer& measurer, Progress progress)
    : options_(std::move(options)),
      clock_(clock),
      measurer_(measurer),
      progress_(std::move(progress)) {}

absl::StatusOr<ModelTuning> ModelTuner::Tune(absl::Time deadline) {
  const std::vector<ExecutionMode>& modes = options_.space.modes;
  records_.clear();
  tuning_ = {};
  const absl::Duration budget = deadline - clock_.Now();
  absl::Time searched = deadline;
  if (options_.oversubscribe) searched -= kOversubscribedPart * budget;
  if (options_.objective.goal == Objective::Goal::kSlo) searched -= kVerifyPart * budget;
  ExecutionMode mode = modes.front();
  std::vector<ExecutionMode> hopeful;
  if (modes.size() > 1) {
    std::vector<Candidate> candidates;
    for (const ExecutionMode& each : modes) {
      candidates.push_back(Layouts(options_.space, each).front());
    }
    MILLRACE_RETURN_IF_ERROR(
        SearchAmong(candidates, "modes", clock_.Now() + kModesPart * (searched - clock_.Now())));
    mode = *tuning_.measured.front().candidate.mode;
    for (const Measured& each : tuning_.measured) {
      if (each.finding.status.ok() && each.finding.ratio >= kHopeless) {
        hopeful.push_back(*each.candidate.mode);
      }
    }
  }
  const double part = hopeful.size() > 1 ? kLayoutsPart : 1.0;
  MILLRACE_RETURN_IF_ERROR(SearchAmong(LayoutsAndBatches(options_.space, options_.objective, mode),
                                       "layouts and batch sizes",
                                       clock_.Now() + part * (searched - clock_.Now())));
  if (hopeful.size() > 1) {
    const Candidate best = tuning_.measured.front().candidate;
    std::vector<Candidate> candidates;
    for (const ExecutionMode& each : hopeful) {
      candidates.push_back(best);
      candidates.back().mode = each;
      candidates.back().mode->wait = best.mode->wait;
    }
    MILLRACE_RETURN_IF_ERROR(SearchAmong(candidates, "modes in the best layout", searched));
  }
  if (options_.objective.goal == Objective::Goal::kSlo) {
    Verify(options_.oversubscribe ? deadline - kOversubscribedPart * budget : deadline);
  }
  if (options_.oversubscribe) MeasureOversubscribed(deadline);
  return std::move(tuning_);
}

absl::Status ModelTuner::SearchAmong(const std::vector<Candidate>& candidates,
                                     const std::string& what, absl::Time deadline) {
  measurer_.Keep(candidates, deadline);
  size_t left = candidates.size();
  Search search(
      options_.search, clock_,
      [&](size_t candidate, absl::Duration length) {
        progress_(absl::StrCat(what, ", ", left, " of ", candidates.size(), " left: ",
                               NameOf(candidates[candidate], options_.space.max_batch_size)));
        return Score(candidates[candidate], length);
      },
      [&](const std::vector<size_t>& those) {
        left = those.size();
        std::vector<Candidate> kept;
        for (const size_t each : those) kept.push_back(candidates[each]);
        measurer_.Keep(kept, deadline);
      });
  MILLRACE_ASSIGN_OR_RETURN(const SearchResult result, search.Find(candidates.size(), deadline));
  Merge(candidates, result);
  return absl::OkStatus();
}

void ModelTuner::Merge(const std::vector<Candidate>& candidates, const SearchResult& result) {
  std::vector<Measured> merged;
  for (const Finding& finding : result.ranking) {
    merged.push_back(Describe(candidates[finding.candidate], finding));
  }
  const auto find = [&merged](const Candidate& candidate) {
    return std::find_if(merged.begin(), merged.end(),
                        [&](const Measured& each) { return each.candidate == candidate; });
  };
  // What was found before was compared with the best of then, which has run again.
  double scale = 0;
  if (!tuning_.measured.empty()) {
    const auto best = find(tuning_.measured.front().candidate);
    if (best != merged.end()) scale = best->finding.ratio;
  }
  for (Measured& earlier : tuning_.measured) {
    if (find(earlier.candidate) != merged.end()) continue;
    earlier.finding.ratio *= scale;
    earlier.finding.low *= scale;
    earlier.finding.high *= scale;
    merged.push_back(std::move(earlier));
  }
  std::stable_sort(merged.begin() + 1, merged.end(), [](const Measured& a, const Measured& b) {
    return a.is_sound() != b.is_sound() ? a.is_sound() : a.finding.ratio > b.finding.ratio;
  });
  tuning_.measured = std::move(merged);
  tuning_.certain = result.certain;
}

ModelTuner::Record& ModelTuner::RecordOf(const Candidate& candidate) {
  for (Record& record : records_) {
    if (record.candidate == candidate) return record;
  }
  return records_.emplace_back(Record{.candidate = candidate, .trials = {}, .rates = {}});
}

absl::StatusOr<double> ModelTuner::Score(const Candidate& candidate, absl::Duration length) {
  const Objective::Goal goal = options_.objective.goal;
  const Load load = {.kind = goal == Objective::Goal::kLatency ? Load::Kind::kOneRequest
                                                               : Load::Kind::kFullBatches};
  const absl::Duration each = goal == Objective::Goal::kSlo ? length / 2 : length;
  MILLRACE_ASSIGN_OR_RETURN(const Trial trial, measurer_.Run(candidate, load, each));
  Record& record = RecordOf(candidate);
  record.trials.push_back(trial);
  if (goal == Objective::Goal::kThroughput) return trial.rows_per_second;
  if (goal == Objective::Goal::kLatency) return 1 / absl::ToDoubleSeconds(trial.p99);
  MILLRACE_ASSIGN_OR_RETURN(const double rate, PredictRate(candidate, trial, each));
  record.rates.push_back(rate);
  return rate > 0 ? rate : kMissesLimit * trial.rows_per_second;
}

absl::StatusOr<double> ModelTuner::PredictRate(const Candidate& candidate, const Trial& full,
                                               absl::Duration length) {
  Service service = {
      .cost = {},
      .replicas = candidate.replicas,
      .most_rows = candidate.most_rows > 0 ? candidate.most_rows : options_.space.max_batch_size};
  service.most_rows = std::max<int64_t>(1, service.most_rows);
  const auto batch_time = [&](const Trial& trial, int64_t rows) {
    return absl::Seconds(static_cast<double>(candidate.replicas * rows) / trial.rows_per_second);
  };
  Trial single = full;
  if (service.most_rows > 1) {
    Candidate alone = candidate;
    alone.most_rows = 1;
    MILLRACE_ASSIGN_OR_RETURN(single,
                              measurer_.Run(alone, {.kind = Load::Kind::kFullBatches}, length));
  }
  for (int i = 0; i < kObservations; ++i) {
    service.cost.Observe(service.most_rows, batch_time(full, service.most_rows));
    service.cost.Observe(1, batch_time(single, 1));
  }
  return MostRequestsPerSecond(service, options_.objective.limit);
}

void ModelTuner::Verify(absl::Time deadline) {
  const Measured& best = tuning_.measured.front();
  if (best.predicted_rate <= 0) return;
  Load load = {.kind = Load::Kind::kAtRandom, .rate = best.predicted_rate};
  for (int left = kVerifications; left > 0; --left, load.rate *= kSlower) {
    const absl::Duration length =
        std::max(options_.search.shortest_run, (deadline - clock_.Now()) / left);
    progress_(absl::StrCat("verifying ", NameOf(best.candidate, options_.space.max_batch_size),
                           " with ", load.rate, " requests a second"));
    const absl::StatusOr<Trial> trial = measurer_.Run(best.candidate, load, length);
    if (!trial.ok()) return;
    tuning_.verified = *trial;
    if (trial->p99 <= options_.objective.limit) return;
  }
}

void ModelTuner::MeasureOversubscribed(absl::Time deadline) {
  const Measured best = tuning_.measured.front();
  const std::vector<Candidate> layouts = Oversubscribed(options_.space, *best.candidate.mode);
  for (size_t i = 0; i < layouts.size(); ++i) {
    const absl::Duration left = deadline - clock_.Now();
    if (left <= absl::ZeroDuration()) return;
    Candidate candidate = layouts[i];
    candidate.most_rows = best.candidate.most_rows;
    progress_(absl::StrCat("more threads than cores: ",
                           NameOf(candidate, options_.space.max_batch_size)));
    Finding finding;
    const auto score =
        Score(candidate, std::clamp(left / static_cast<double>(layouts.size() - i),
                                    options_.search.shortest_run, options_.search.longest_run));
    finding.status = score.status();
    finding.runs = score.ok() ? 1 : 0;
    tuning_.oversubscribed.push_back(Describe(candidate, finding));
    const double rows = tuning_.oversubscribed.back().trial.rows_per_second;
    tuning_.oversubscribed.back().finding.ratio = rows / best.trial.rows_per_second;
  }
}

Measured ModelTuner::Describe(const Candidate& candidate, const Finding& finding) const {
  Measured measured = {.candidate = candidate, .finding = finding, .trial = {}};
  for (const Record& record : records_) {
    if (!(record.candidate == candidate) || record.trials.empty()) continue;
    measured.trial = MedianOf(record.trials);
    if (!record.rates.empty()) measured.predicted_rate = Median(record.rates);
  }
  return measured;
}

std::vector<Candidate> LayoutsAndBatches(const TuningSpace& space, const Objective& objective,
                                         const ExecutionMode& mode) {
  std::vector<Candidate> layouts = Layouts(space, mode);
  const auto waiting = [&](std::vector<Candidate> those) {
    return space.varies_waiting ? WithWaiting(those) : those;
  };
  if (objective.goal != Objective::Goal::kLatency) {
    return WithBatchSizes(waiting(std::move(layouts)), space.max_batch_size);
  }
  // One request at a time has a batch of its own in one replica, however many there are.
  layouts.erase(
      std::unique(layouts.begin(), layouts.end(),
                  [](const Candidate& a, const Candidate& b) { return a.threads == b.threads; }),
      layouts.end());
  return waiting(std::move(layouts));
}

Candidate BestWithin(const ModelTuning& tuning, int cores) {
  for (const Measured& each : tuning.measured) {
    const Candidate& candidate = each.candidate;
    if (!each.is_sound() || candidate.replicas * candidate.threads > cores) continue;
    Candidate within = candidate;
    // Between two powers of two there may be room for more replicas of the same kind.
    const Candidate& best = tuning.measured.front().candidate;
    if (within.threads == best.threads && best.replicas > within.replicas) {
      within.replicas = std::min(best.replicas, cores / within.threads);
    }
    return within;
  }
  return tuning.measured.front().candidate;
}

std::vector<double> CurveOf(const ModelTuning& tuning, int cores) {
  std::vector<double> curve(static_cast<size_t>(cores), 0);
  for (const Measured& each : tuning.measured) {
    const int needs = each.candidate.replicas * each.candidate.threads;
    if (!each.is_sound() || needs > cores) continue;
    double& known = curve[static_cast<size_t>(needs - 1)];
    known = std::max(known, each.trial.rows_per_second);
  }
  // Between what was measured along a straight line, from nothing with no core.
  size_t last = 0;  // Cores at the last point.
  double value = 0;
  for (size_t n = 1; n <= curve.size(); ++n) {
    if (curve[n - 1] <= value) continue;
    const double step = (curve[n - 1] - value) / static_cast<double>(n - last);
    for (size_t i = last + 1; i < n; ++i) {
      curve[i - 1] = value + step * static_cast<double>(i - last);
    }
    last = n;
    value = curve[n - 1];
  }
  for (size_t i = last + 1; i <= curve.size(); ++i) curve[i - 1] = value;
  return curve;
}

}  // namespace millrace
