// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/placement/placement.h"
#include "server/tuning/machine_fingerprint.h"

namespace millrace {

// What was measured of a way to run a model.
struct Figures {
  double rows_per_second = 0;
  absl::Duration p99 = {};  // Of the time from a request to its answer.

  friend bool operator==(const Figures&, const Figures&) = default;
};

// What measuring one model's file has found.
struct TunedModel {
  std::string model;
  std::string sha256;     // Of the file that runs, in 64 small hex digits.
  std::string objective;  // For people: "throughput", "latency" or "slo 50ms".
  MeasuredBest best;
  // Of `best`; nullopt where it follows from what was measured, and wasn't run itself: where models
  // share the cores.
  std::optional<Figures> figures = std::nullopt;

  friend bool operator==(const TunedModel&, const TunedModel&) = default;
};

// How the models of a repository are run best on one machine.
struct TunedPlan {
  MachineFingerprint machine;
  std::vector<TunedModel> models;  // A model may be there with several files, each once.

  friend bool operator==(const TunedPlan&, const TunedPlan&) = default;
};

// Reads a plan, a JSON file that docs/placement.md describes. NOT_FOUND where there is none;
// INVALID_ARGUMENT names the file, the place in it, what is there and what was expected, also for
// keys that nobody knows.
absl::StatusOr<TunedPlan> ReadPlanFile(const std::string& path);

// Writes a plan aside and renames it into place, so that whoever reads it sees it whole; makes the
// folder where there is none. An error of the file system otherwise. REQUIRES: reading it again
// would give no error.
absl::Status WritePlanFile(const std::string& path, const TunedPlan& plan);

}  // namespace millrace
