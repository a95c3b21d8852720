// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace millrace {

// A GPU that the worker's libtorch can use, as `millrace-worker --describe` reports it. The server
// itself never touches CUDA.
struct Accelerator {
  int index = 0;  // The device number of CUDA within this process's visible devices.
  std::string name;
  uint64_t total_memory_bytes = 0;
  uint64_t free_memory_bytes = 0;
};

}  // namespace millrace
