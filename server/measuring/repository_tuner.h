// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
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
  };

  // `clock` and `timer` outlive the tuner.
  RepositoryTuner(Options options, Hardware hardware, MachineFingerprint machine, Clock& clock,
                  Timer& timer);

  // Measures until `deadline`. A model that can't be measured is in the report with the reason.
  // Blocks.
  TuningReport Tune(absl::Span<const ModelDirectory> models, absl::Time deadline);

  // What Tune() would begin with, for people: a line for each model.
  std::string Describe(absl::Span<const ModelDirectory> models) const;

 private:
  TunedVersion TuneOne(const ModelDirectory& directory, const ModelVersion& version,
                       absl::Time deadline);
  absl::Status Measure(const ModelSettings& settings, absl::Time deadline, TunedVersion& tuned);
  void Share(std::vector<TunedVersion>& models) const;
  // Of the file that is to be run as chosen.
  static absl::Status Hash(TunedVersion& tuned);

  const Options options_;
  const Hardware hardware_;
  const MachineFingerprint machine_;
  Clock& clock_;
  Timer& timer_;
};

// The report as a plan: those that were found.
TunedPlan PlanOf(const TuningReport& report);

// What is in `plan` and not in `newer` of the same machine, then `newer`.
TunedPlan Merge(const TunedPlan& plan, const TunedPlan& newer);

// Writes what was found into the plan of each repository, beside what is known there of other
// models; or all of it into `file`, where that isn't empty. Returns the paths of what was written.
// An error where one can't be written, or where there is something else in its place.
absl::StatusOr<std::vector<std::string>> WritePlans(const TuningReport& report,
                                                    const std::string& file);

}  // namespace millrace
