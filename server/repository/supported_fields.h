// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "server/repository/config_text.h"

namespace millrace {

// Refuses what the schema of config.pbtxt knows but this server doesn't act on, so that no setting
// is ever ignored silently: INVALID_ARGUMENT names the first such field and its line. A field that
// holds its default asks for nothing and passes. Also refuses text that isn't UTF-8, and a map's
// key that is given twice.
absl::Status CheckSupported(const ConfigNode& node);

}  // namespace millrace
