// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/nvml.h"

#include <dlfcn.h>

#include <array>
#include <utility>

namespace millrace {
namespace {

// The part of NVML's binary interface that is used here (NVML API Reference Manual).
constexpr int kSuccess = 0;
using Device = void*;
struct Memory {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int): NVML's own types.
};
struct Utilization {
  unsigned int gpu, memory;  // Per cent.
};

template <typename Function>
bool Find(void* handle, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(handle, name));
  return *function != nullptr;
}

}  // namespace

struct Nvml::Functions {
  int (*init)();
  int (*shut_down)();
  int (*device_count)(unsigned int*);
  int (*device)(unsigned int, Device*);
  int (*uuid)(Device, char*, unsigned int);
  int (*memory)(Device, Memory*);
  int (*utilization)(Device, Utilization*);
  int (*power)(Device, unsigned int*);  // Milliwatts.

  bool FindIn(void* handle) {
    return Find(handle, "nvmlInit_v2", &init) && Find(handle, "nvmlShutdown", &shut_down) &&
           Find(handle, "nvmlDeviceGetCount_v2", &device_count) &&
           Find(handle, "nvmlDeviceGetHandleByIndex_v2", &device) &&
           Find(handle, "nvmlDeviceGetUUID", &uuid) &&
           Find(handle, "nvmlDeviceGetMemoryInfo", &memory) &&
           Find(handle, "nvmlDeviceGetUtilizationRates", &utilization) &&
           Find(handle, "nvmlDeviceGetPowerUsage", &power);
  }
};

std::unique_ptr<Nvml> Nvml::Load(const char* library) {
  void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return nullptr;
  auto functions = std::make_unique<Functions>();
  if (!functions->FindIn(handle) || functions->init() != kSuccess) {
    dlclose(handle);
    return nullptr;
  }
  return std::unique_ptr<Nvml>(new Nvml(handle, std::move(functions)));
}

Nvml::Nvml(void* handle, std::unique_ptr<Functions> functions)
    : handle_(handle), functions_(std::move(functions)) {}

Nvml::~Nvml() {
  functions_->shut_down();
  dlclose(handle_);
}

std::vector<Nvml::Gpu> Nvml::Read() const {
  std::vector<Gpu> gpus;
  unsigned int count = 0;
  if (functions_->device_count(&count) != kSuccess) return gpus;
  for (unsigned int i = 0; i < count; ++i) {
    Device device = nullptr;
    std::array<char, 96> uuid = {};
    if (functions_->device(i, &device) != kSuccess) continue;
    if (functions_->uuid(device, uuid.data(), uuid.size() - 1) != kSuccess) continue;
    Gpu gpu;
    gpu.index = static_cast<int>(i);
    gpu.uuid = uuid.data();
    Memory memory = {};
    if (functions_->memory(device, &memory) == kSuccess) {
      gpu.memory_used_bytes = memory.used;
      gpu.memory_total_bytes = memory.total;
    }
    Utilization utilization = {};
    if (functions_->utilization(device, &utilization) == kSuccess) {
      gpu.utilisation = utilization.gpu / 100.0;
    }
    unsigned int milliwatts = 0;
    if (functions_->power(device, &milliwatts) == kSuccess) gpu.power_watts = milliwatts / 1000.0;
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

}  // namespace millrace
