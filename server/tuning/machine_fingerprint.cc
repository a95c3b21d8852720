// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tuning/machine_fingerprint.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace millrace {
namespace {

std::string DescribeCores(double cores) {
  return absl::StrCat(cores, cores == 1 ? " core" : " cores");
}

std::string DescribeGpus(const std::vector<std::string>& gpus) {
  return gpus.empty() ? "no GPU" : absl::StrCat("GPUs ", absl::StrJoin(gpus, ", "));
}

// FNV-1a, which is the same everywhere and for good.
uint64_t Hash(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

MachineFingerprint FingerprintOf(const Hardware& hardware, const std::string& libtorch) {
  MachineFingerprint machine = {.cpu = hardware.cpu_model.name,
                                .isa = hardware.cpu_model.isa,
                                .cores = std::round(hardware.cpu.cores() * 100) / 100,
                                .gpus = {},
                                .libtorch = libtorch};
  for (const Accelerator& gpu : hardware.accelerators) machine.gpus.push_back(gpu.name);
  return machine;
}

std::string Describe(const MachineFingerprint& machine) {
  return absl::StrCat(machine.cpu, " (", machine.isa, "), ", DescribeCores(machine.cores), ", ",
                      DescribeGpus(machine.gpus), ", libtorch ", machine.libtorch);
}

std::string Difference(const MachineFingerprint& machine, const MachineFingerprint& other) {
  std::vector<std::string> differences;
  const auto compare = [&](const std::string& here, const std::string& there) {
    if (here != there) differences.push_back(absl::StrCat(there, " instead of ", here));
  };
  compare(machine.cpu, other.cpu);
  compare(machine.isa, other.isa);
  compare(DescribeCores(machine.cores), DescribeCores(other.cores));
  compare(DescribeGpus(machine.gpus), DescribeGpus(other.gpus));
  compare(absl::StrCat("libtorch ", machine.libtorch), absl::StrCat("libtorch ", other.libtorch));
  return absl::StrJoin(differences, ", ");
}

std::string PlanPath(const std::string& repository, const MachineFingerprint& machine) {
  return absl::StrFormat("%s/.millrace/plan-%016x.json", repository, Hash(Describe(machine)));
}

}  // namespace millrace
