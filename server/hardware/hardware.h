// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "server/hardware/accelerator.h"
#include "server/hardware/cpu_budget.h"
#include "server/hardware/cpu_model.h"
#include "server/hardware/cpu_topology.h"

namespace millrace {

// What this machine gives the server. A plain value.
struct Hardware {
  CpuBudget cpu;
  CpuModel cpu_model;
  CpuTopology topology;
  std::vector<Accelerator> accelerators;  // Ascending by index.
};

// Reads what the files below `root` tell of the CPUs. Accelerators are left to the caller, who
// asks a worker program for them.
Hardware DetectHardware(const std::filesystem::path& root = "/");

// One line for the log: the budget, what set it, the topology and the accelerators.
std::string DescribeHardware(const Hardware& hardware);

}  // namespace millrace
