// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_settings.h"

#include <algorithm>

namespace millrace {

int ModelSettings::LevelOf(uint64_t priority) const {
  if (priority == 0 || priority > queue_policies.size()) return default_level;
  return static_cast<int>(priority);
}

bool ModelSettings::has_transform() const {
  return std::any_of(inputs.begin(), inputs.end(),
                     [](const TensorSpec& input) { return input.transform != nullptr; });
}

ModelSignature ModelSettings::SignatureOf(int64_t version) const {
  return ModelSignature(name, version, max_batch_size, inputs, outputs);
}

inference::ModelConfig ModelSettings::ConfigOf(EngineKind version_engine) const {
  inference::ModelConfig whole = config;
  whole.set_backend("pytorch");
  whole.set_platform(PlatformName(version_engine));
  whole.set_default_model_filename(filename.value_or(DefaultFilename(version_engine)));
  return whole;
}

const char* DefaultFilename(EngineKind engine) {
  return engine == EngineKind::kTorchScript ? "model.pt" : "model.pt2";
}

const char* PlatformName(EngineKind engine) {
  return engine == EngineKind::kTorchScript ? "pytorch_libtorch" : "torch_aoti";
}

}  // namespace millrace
