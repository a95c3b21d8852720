// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// A shared library with the part of NVML that the server uses: two GPUs, of which the second tells
// neither how busy it is nor what it draws.
#include <cstdint>
#include <cstring>

namespace {

bool started = false;
constexpr int kSuccess = 0;
constexpr int kNotSupported = 3;

unsigned int IndexOf(void* device) {
  return static_cast<unsigned int>(reinterpret_cast<uintptr_t>(device)) - 1;
}

}  // namespace

extern "C" {

struct Memory {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int): NVML's own types.
};
struct Utilization {
  unsigned int gpu, memory;
};

int nvmlInit_v2() {
  started = true;
  return kSuccess;
}

int nvmlShutdown() {
  started = false;
  return kSuccess;
}

int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = 2;
  return started ? kSuccess : 1;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** device) {
  *device = reinterpret_cast<void*>(uintptr_t{index} + 1);
  return kSuccess;
}

int nvmlDeviceGetUUID(void* device, char* uuid, unsigned int size) {
  std::strncpy(uuid, IndexOf(device) == 0 ? "GPU-first" : "GPU-second", size);
  return kSuccess;
}

int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
  *memory = {1000 + IndexOf(device), 400, 600 + IndexOf(device)};
  return kSuccess;
}

int nvmlDeviceGetUtilizationRates(void* device, Utilization* utilization) {
  if (IndexOf(device) == 1) return kNotSupported;
  *utilization = {75, 10};
  return kSuccess;
}

int nvmlDeviceGetPowerUsage(void* device, unsigned int* milliwatts) {
  if (IndexOf(device) == 1) return kNotSupported;
  *milliwatts = 123'500;
  return kSuccess;
}

}  // extern "C"
