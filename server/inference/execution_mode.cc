// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/execution_mode.h"

#include "absl/strings/str_cat.h"

namespace millrace {

std::string NameOf(const ExecutionMode& mode) {
  return absl::StrCat(EngineName(mode.engine), mode.bfloat16 ? " bf16" : "",
                      mode.channels_last ? " channels-last" : "",
                      mode.wait == ThreadWait::kActive ? " active" : "");
}

}  // namespace millrace
