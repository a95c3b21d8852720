// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/devices.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/ones.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/worker/model_error.h"

namespace millrace {
namespace {

std::string Gibibytes(uint64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (uint64_t{1} << 30));
}

// libtorch has no device-generic call for a device's name; CUDA's driver, where it is loaded, has.
std::string DeviceName(int index) {
  using GetName = int (*)(char*, int, int);
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  void* const get_name = driver ? dlsym(driver, "cuDeviceGetName") : nullptr;
  char name[256] = {};
  if (get_name && reinterpret_cast<GetName>(get_name)(name, sizeof(name) - 1, index) == 0) {
    return name;
  }
  return absl::StrCat("GPU ", index);
}

// What is known of a device's memory, in bytes; zeros where libtorch is too old to tell.
struct Memory {
  uint64_t free = 0;
  uint64_t total = 0;
  uint64_t most_taken = 0;  // By this process.
};

Memory MemoryOf(c10::Device device) {
  Memory memory;
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 10
  std::tie(memory.free, memory.total) = at::accelerator::getMemoryInfo(device.index());
  const auto stats = at::accelerator::getDeviceStats(device.index());
  memory.most_taken = static_cast<uint64_t>(stats.reserved_bytes[0].peak);  // [0]: in all.
#endif
  return memory;
}

}  // namespace

WorkerDescription DescribeWorker() {
  WorkerDescription description = {.libtorch_version = TORCH_VERSION, .gpus = {}};
  const auto type = at::accelerator::getAccelerator();
  const int count = type ? at::accelerator::deviceCount() : 0;
  for (int index = 0; index < count; ++index) {
    WorkerDescription::Gpu gpu = {.index = index, .name = DeviceName(index)};
    // A device that can't be asked is described without figures.
    (void)CatchModelErrors([&]() -> absl::Status {
      const c10::Device device(*type, static_cast<c10::DeviceIndex>(index));
      const Memory memory = MemoryOf(device);
      gpu.free_memory_bytes = memory.free;
      gpu.total_memory_bytes = memory.total;
      return absl::OkStatus();
    });
    description.gpus.push_back(gpu);
  }
  return description;
}

absl::StatusOr<c10::Device> UseDevice(int index) {
  if (index < 0) return c10::Device(c10::kCPU);
  return CatchModelErrors([&]() -> absl::StatusOr<c10::Device> {
    const auto type = at::accelerator::getAccelerator();
    const int count = type ? at::accelerator::deviceCount() : 0;
    if (index >= count) {
      return absl::FailedPreconditionError(
          absl::StrCat("GPU ", index, " was asked for, but libtorch ", TORCH_VERSION, " sees ",
                       count, " GPUs here"));
    }
    at::accelerator::setDeviceIndex(static_cast<c10::DeviceIndex>(index));
    return c10::Device(*type, static_cast<c10::DeviceIndex>(index));
  });
}

std::string MemoryReport(c10::Device device, size_t weight_bytes) {
  if (device.is_cpu()) return "";
  std::string report;
  (void)CatchModelErrors([&]() -> absl::Status {
    const Memory memory = MemoryOf(device);
    const uint64_t taken = std::max<uint64_t>({memory.most_taken, weight_bytes, 1});
    if (memory.total == 0) return absl::OkStatus();
    report = absl::StrCat(". GPU ", device.index(), " has ", Gibibytes(memory.free), " free of ",
                          Gibibytes(memory.total), "; this replica took ", Gibibytes(taken),
                          ", so at most ", memory.total / taken,
                          " of its size fit: lower instance_group's count or max_batch_size");
    return absl::OkStatus();
  });
  return report;
}

bool StillComputes(c10::Device device) {
  const absl::Status status = CatchModelErrors([&]() -> absl::Status {
    (void)at::ones({1}, device).item<float>();
    return absl::OkStatus();
  });
  return status.ok() || absl::IsResourceExhausted(status);
}

void Synchronize(c10::Device device) {
  if (!device.is_cpu()) at::accelerator::getCurrentStream(device.index()).synchronize();
}

}  // namespace millrace
