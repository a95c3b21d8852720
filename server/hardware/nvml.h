// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace millrace {

// NVIDIA's management library, loaded where the machine has it: how busy its GPUs are and how full.
// It makes no CUDA context and takes no GPU memory. Thread-compatible.
class Nvml {
 public:
  static constexpr char kLibrary[] = "libnvidia-ml.so.1";

  // Loads and starts the library; null where there is none, or no driver.
  static std::unique_ptr<Nvml> Load(const char* library = kLibrary);
  ~Nvml();

  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // A GPU; what it doesn't tell is nullopt.
  struct Gpu {
    int index = 0;  // The driver's, which CUDA_VISIBLE_DEVICES doesn't change.
    std::string uuid;
    std::optional<double> utilisation;  // 0 to 1.
    std::optional<uint64_t> memory_used_bytes, memory_total_bytes;
    std::optional<double> power_watts;
  };
  // All GPUs of the machine. Asks the driver; takes a millisecond or so for each.
  std::vector<Gpu> Read() const;

 private:
  struct Functions;

  Nvml(void* handle, std::unique_ptr<Functions> functions);

  void* const handle_;
  const std::unique_ptr<Functions> functions_;
};

}  // namespace millrace
