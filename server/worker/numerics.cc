// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/numerics.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <cstdint>
#include <cstdlib>

namespace millrace {

absl::Status SetNumerics(const LoadCommand& command) {
  at::Context& torch = at::globalContext();
  if (!torch.setFlushDenormal(command.flush_denormals) && command.flush_denormals) {
    return absl::UnimplementedError(
        "the config says flush_denormals, which this processor can't; remove it");
  }
  if (!command.deterministic) return absl::OkStatus();
  torch.setDeterministicAlgorithms(true, /*warn_only=*/false);
  torch.setDeterministicCuDNN(true);
  torch.setBenchmarkCuDNN(false);
  // Without this, cuBLAS counts as not deterministic; it looks when it is used first.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/1);
  return absl::OkStatus();
}

void SeedRun(c10::Device device) {
  constexpr uint64_t kSeed = 0;
  if (!device.is_cpu()) return at::manual_seed(kSeed);
  // Alone: the above asks for the GPUs, which a process that is to fork must not touch.
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(kSeed);
}

}  // namespace millrace
