// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/tuning_space.h"

#include <algorithm>
#include <vector>

namespace millrace {
namespace {

// Of a tensor as the model gets it, with which of two layouts could be chosen.
constexpr size_t kPictureDims = 4;

bool TakesPictures(const ModelSettings& settings) {
  return std::any_of(settings.inputs.begin(), settings.inputs.end(), [&](const TensorSpec& input) {
    return input.dims.size() + (settings.max_batch_size > 0 ? 1 : 0) == kPictureDims;
  });
}

// What may be chosen: what the configuration says, else false, and true where it is possible.
std::vector<bool> Choices(const std::optional<bool>& configured, bool possible) {
  if (configured) return {*configured};
  if (possible) return {false, true};
  return {false};
}

}  // namespace

absl::StatusOr<TuningSpace> TuningSpaceOf(const ModelSettings& settings,
                                          const ModelVersion& version, const Hardware& hardware) {
  TuningSpace space = {.cores = hardware.cpu.most_slots(),
                       .replicas = std::nullopt,
                       .threads = settings.intra_op_threads,
                       .max_batch_size = settings.max_batch_size,
                       .modes = {}};
  if (settings.instance_groups.size() > 1) {
    return absl::FailedPreconditionError(
        "its instance_group has several groups, which say where it runs; leave one to have the "
        "best measured");
  }
  const InstanceGroup group =
      settings.instance_groups.empty() ? InstanceGroup() : settings.instance_groups.front();
  const bool has_gpu = !hardware.accelerators.empty();
  if (group.kind == DeviceKind::kGpu ||
      (group.kind == DeviceKind::kAuto && has_gpu && version.engine == EngineKind::kTorchScript)) {
    return absl::FailedPreconditionError(
        "it runs on GPUs, where there is nothing to choose; only models on CPUs are tuned");
  }
  space.replicas = group.count;

  const ExecutionWishes& wishes = settings.execution;
  const ThreadWait wait = wishes.wait.value_or(ThreadWait::kPassive);
  if (version.engine == EngineKind::kTorchScript) {
    // BF16 comes with freezing.
    const bool bf16 = hardware.cpu_model.computes_bfloat16 && !settings.disable_optimized_execution;
    for (const bool bfloat16 : Choices(wishes.bfloat16, bf16)) {
      for (const bool channels_last : Choices(wishes.channels_last, TakesPictures(settings))) {
        space.modes.push_back({.engine = EngineKind::kTorchScript,
                               .bfloat16 = bfloat16,
                               .channels_last = channels_last,
                               .wait = wait});
      }
    }
  }
  // A package computes as it was compiled.
  if (version.engine == EngineKind::kAotInductor || !version.package.empty()) {
    space.modes.push_back({.engine = EngineKind::kAotInductor, .wait = wait});
  }
  space.varies_waiting = !wishes.wait;
  return space;
}

}  // namespace millrace
