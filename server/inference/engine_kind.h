// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace millrace {

// How a model file is run.
enum class EngineKind {
  kTorchScript,  // model.pt
  kAotInductor,  // model.pt2
};

// "torchscript" or "aotinductor".
constexpr const char* EngineName(EngineKind kind) {
  return kind == EngineKind::kTorchScript ? "torchscript" : "aotinductor";
}

}  // namespace millrace
