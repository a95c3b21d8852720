// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/base/mutex.h"
#include "server/repository/model_directory.h"
#include "server/repository/model_settings.h"
#include "server/tuning/machine_fingerprint.h"
#include "server/tuning/plan_file.h"

namespace millrace {

// Finds what measuring on this machine has found of a model's file, in the plan that lies in the
// model's repository, or in one for all. A plan that doesn't fit is ignored, and the log says why.
// Reads the plan each time, so that a model that is loaded later, or again, gets the newest.
// Thread-safe.
class MeasuredPlans {
 public:
  struct Options {
    MachineFingerprint machine;
    bool ignore = false;  // There is nothing to find.
    std::string file;     // Empty: each repository has its own; see PlanPath().
  };

  explicit MeasuredPlans(Options options) : options_(std::move(options)) {}

  const MachineFingerprint& machine() const { return options_.machine; }

  // What was measured of the version's file, or of the package beside it, as far as it agrees with
  // what `settings` say in so many words: numbers that were measured in another mode, or with other
  // numbers, say nothing. Blocks on the disk, for the time of reading the whole model where the
  // plan has it.
  std::optional<TunedModel> Find(const ModelSettings& settings, const ModelVersion& version);

  // Whether Find() would find something. Blocks as that does.
  bool Knows(const ModelSettings& settings, const ModelVersion& version) {
    return Look(settings, version).best.has_value();
  }

  // What has just been measured here, which counts beside what the files have, and before it.
  void Add(const std::vector<TunedModel>& models) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    added_.insert(added_.end(), models.begin(), models.end());
  }

 private:
  struct Found {
    std::optional<TunedModel> best;
    bool others = false;  // Of this model something else is known.
  };
  Found Look(const ModelSettings& settings, const ModelVersion& version)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The plan for what lies in `repository`; nullopt where there is none for this machine.
  std::optional<TunedPlan> Read(const std::string& repository);
  // Writes to the log what hasn't been said before.
  void SayOnce(const std::string& text) ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  Mutex mutex_;
  std::vector<TunedModel> added_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> said_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
