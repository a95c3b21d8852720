// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "absl/status/statusor.h"
#include "server/channel/worker_protocol.h"

namespace millrace {

// The GPUs and the libtorch of this machine. Touches the devices: for a process that ends soon.
WorkerDescription DescribeWorker();

// The device for ForkCommand::device_index: the CPU for -1, else that GPU, made current.
// FAILED_PRECONDITION where there is no such GPU. Call after the fork.
absl::StatusOr<c10::Device> UseDevice(int index);

// For an error that ran out of `device`'s memory: how much there is, how much this replica took,
// and how many replicas of this size fit. Empty for a CPU.
std::string MemoryReport(c10::Device device, size_t weight_bytes);

// Whether the device still computes. A fault in a kernel (an address that isn't mapped, an
// assertion) breaks a process's context for good: then whatever it is asked fails, and only another
// process helps. Memory that has run out is no such fault.
bool StillComputes(c10::Device device);

// Waits until the device has done what was asked of it. Throws what went wrong there.
void Synchronize(c10::Device device);

}  // namespace millrace
