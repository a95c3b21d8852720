// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "proto/model_config.pb.h"
#include "server/inference/model_signature.h"
#include "server/repository/config_text.h"
#include "server/transform/image_transform.h"

namespace millrace {

// Reads what `config`, which stands at `node`, makes of pictures for the input `spec`, which stands
// at `input`. INVALID_ARGUMENT names the field, what came and what was expected.
absl::StatusOr<ImageTransform> ReadImageTransform(
    const ConfigNode& node, const inference::Millrace::Transform::Image& config,
    const ConfigNode& input, inference::ModelInput::Format format, const TensorSpec& spec);

}  // namespace millrace
