// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "server/hardware/hardware.h"

namespace millrace {

// What a plan was found on. Two machines with the same fingerprint run a model equally fast, as far
// as Millrace can tell.
struct MachineFingerprint {
  std::string cpu;                // See CpuModel.
  std::string isa;                // The same.
  double cores = 1;               // Of the budget, to hundredths.
  std::vector<std::string> gpus;  // Their names, by index.
  std::string libtorch;           // Its version.

  friend bool operator==(const MachineFingerprint&, const MachineFingerprint&) = default;
};

// The fingerprint of this machine as this process may use it.
MachineFingerprint FingerprintOf(const Hardware& hardware, const std::string& libtorch);

// "AMD EPYC 7B13 (AVX2), 1.5 cores, no GPU, libtorch 2.13.0".
std::string Describe(const MachineFingerprint& machine);

// How `other` differs from `machine`, for people: "4 cores instead of 2". Empty where they are
// equal.
std::string Difference(const MachineFingerprint& machine, const MachineFingerprint& other);

// Where the plan of a machine for the models of a repository lies:
// <repository>/.millrace/plan-<hash>.json, so that machines can share a repository.
std::string PlanPath(const std::string& repository, const MachineFingerprint& machine);

}  // namespace millrace
