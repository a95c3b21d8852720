// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/repository/model_settings.h"

namespace millrace {

// Reads the text of a model's config.pbtxt. `file` is how messages call it, `directory_name` the
// name of the model's directory, which is the model's name. Opens no file.
//
// Strict: an unknown field, a value that makes no sense, and a field that is known but not acted
// on are INVALID_ARGUMENT, with file, line and field. Never crashes, whatever the text.
absl::StatusOr<ModelSettings> ParseModelConfig(const std::string& text, const std::string& file,
                                               const std::string& directory_name);

}  // namespace millrace
