// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/placement/placement.h"

namespace millrace {

// What a plan was found on. Two machines with the same fingerprint run a model equally fast, as far
// as Millrace can tell.
struct MachineFingerprint {
  std::string cpu;                // The model's name, as /proc/cpuinfo has it.
  std::string isa;                // The widest vector instructions: "AVX512 AMX_TILE", "AVX2", ….
  double cores = 1;               // Of the budget, with a quota's fraction.
  std::vector<std::string> gpus;  // Their names, by index.
  std::string libtorch;           // Its version.

  friend bool operator==(const MachineFingerprint&, const MachineFingerprint&) = default;
};

// What measuring one model has found.
struct TunedModel {
  std::string model;
  std::string sha256;     // Of the file that was measured, in hex.
  std::string objective;  // "throughput", "latency" or "slo 50ms".
  Measurements::Best best;
  double rows_per_second = 0;  // Measured for `best`,
  absl::Duration p99;          // and how long a request took.
};

// Plans for the models of a repository, as one JSON file.
struct TunedPlan {
  MachineFingerprint machine;
  std::vector<TunedModel> models;  // By name.
};

// Reads a plan. INVALID_ARGUMENT names the file and what in it was expected; NOT_FOUND where there
// is none.
absl::StatusOr<TunedPlan> ReadPlanFile(const std::string& path);

// Writes it aside and renames it into place. An error of the file system otherwise.
absl::Status WritePlanFile(const std::string& path, const TunedPlan& plan);

}  // namespace millrace
