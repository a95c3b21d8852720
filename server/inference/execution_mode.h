// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "server/inference/engine_kind.h"

namespace millrace {

// What the threads of a replica's team do between two parallel regions.
enum class ThreadWait {
  kPassive,  // Sleep: the cores are free for others.
  kActive,   // Spin: the next region begins sooner.
};

// "passive" or "active".
constexpr const char* WaitName(ThreadWait wait) {
  return wait == ThreadWait::kActive ? "active" : "passive";
}

// How a model's file is run, where several ways give the same answers but for rounding: which is
// fastest differs by machine, and is measured.
struct ExecutionMode {
  EngineKind engine = EngineKind::kTorchScript;
  bool bfloat16 = false;       // Compute in BF16 what the model computes in FP32.
  bool channels_last = false;  // Inputs of four dimensions, and weights, lie in memory as NHWC.
  ThreadWait wait = ThreadWait::kPassive;

  friend bool operator==(const ExecutionMode&, const ExecutionMode&) = default;
};

// The engine, then what isn't usual: "torchscript", "aotinductor active",
// "torchscript bf16 channels-last".
std::string NameOf(const ExecutionMode& mode);

}  // namespace millrace
