// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/base/clock.h"
#include "server/base/timer.h"
#include "server/hardware/hardware.h"
#include "server/measuring/model_tuner.h"
#include "server/measuring/pool_measurer.h"
#include "server/repository/model_directory.h"
#include "server/tuning/machine_fingerprint.h"
#include "server/tuning/plan_file.h"

namespace millrace {

// What was found of one version of a model.
struct TunedVersion {
  std::string model;
  ModelVersion version = {};
  int64_t max_batch_size = 0;
  absl::Status status = {};  // Why nothing was found.
  ModelTuning tuning = {};
  Candidate chosen = {};    // The best; with a share of the cores, the best within it.
  std::string sha256 = {};  // Of the file that `chosen` runs.
};

// What tuning a repository has found.
struct TuningReport {
  MachineFingerprint machine;
  Objective objective;
  std::vector<TunedVersion> models;  // In the order of the repository.
};

// Finds the best way to run the models of a repository on this machine, one after the other. Where
// there are several, each gets a share of the cores, so that all of them can be busy at once; but
// for Goal::kLatency, with which each gets what answers it soonest. Confined to one thread.
class RepositoryTuner {
 public:
  struct Options {
    Objective objective;
    bool oversubscribe = false;
    PoolMeasurer::Options measurer;
    // Told before each run, at most: what is measured.
    ModelTuner::Progress progress = [](const std::string&) {};
    // Told whenever a version has been measured, so that it can be kept: all that was found by
    // then. With several models each call may share the cores anew.
    std::function<void(const TuningReport& report)> found = [](const TuningReport&) {};
  };

  // `clock` and `timer` outlive the tuner.
  RepositoryTuner(Options options, Hardware hardware, MachineFingerprint machine, Clock& clock,
                  Timer& timer);

  // Measures until `deadline`, but for the run that goes on then. A model that can't be measured is
  // in the report with the reason. Blocks.
  TuningReport Tune(absl::Span<const ModelDirectory> models, absl::Time deadline);

  // What Tune() would begin with, for people: a line for each model.
  std::string Describe(absl::Span<const ModelDirectory> models) const;

 private:
  // When a version's time is over, and when that of all is: then even a load is given up.
  struct Deadlines {
    absl::Time mine;
    absl::Time last;
  };
  TunedVersion TuneOne(const ModelDirectory& directory, const ModelVersion& version,
                       Deadlines deadlines);
  absl::Status Measure(const ModelSettings& settings, Deadlines deadlines, TunedVersion& tuned);
  void Share(std::vector<TunedVersion>& models) const;
  // Of the file that is to be run as chosen.
  absl::Status Hash(TunedVersion& tuned);

  const Options options_;
  const Hardware hardware_;
  const MachineFingerprint machine_;
  Clock& clock_;
  Timer& timer_;
  std::map<std::string, std::string> hashes_;  // By the path of the file: each is read once.
};

// The report as a plan: those that were found. The figures are those of what was chosen; there are
// none where it wasn't measured as it is to run.
TunedPlan PlanOf(const TuningReport& report);

// What is in `plan` and not in `newer`, then `newer`. REQUIRES: both are of the same machine.
TunedPlan Merge(const TunedPlan& plan, const TunedPlan& newer);

// Whether WritePlans() could add to what lies in its place now, so that nothing is measured in
// vain: FAILED_PRECONDITION where that was measured on another machine, INVALID_ARGUMENT where it
// is no plan.
absl::Status CheckPlans(absl::Span<const ModelDirectory> models, const MachineFingerprint& machine,
                        const std::string& file);

// Writes what was found into the plan of each repository, beside what is known there of other
// models; or all of it into `file`, where that isn't empty. Returns the paths of what was written.
// An error where one can't be written, and those of CheckPlans(): what was found on another machine
// stays.
absl::StatusOr<std::vector<std::string>> WritePlans(const TuningReport& report,
                                                    const std::string& file);

}  // namespace millrace
