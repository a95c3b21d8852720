// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace millrace {

// The text of a config.pbtxt that says what `json`, a ModelConfig in protobuf's JSON, says.
// INVALID_ARGUMENT for what is no such JSON, fields that ModelConfig doesn't have included.
absl::StatusOr<std::string> ConfigTextOfJson(const std::string& json);

}  // namespace millrace
