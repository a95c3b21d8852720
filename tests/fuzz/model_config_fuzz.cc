// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// A config.pbtxt is refused with a message that names the file, or taken with sizes that fit.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "server/base/check.h"
#include "server/repository/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto settings = millrace::ParseModelConfig(text, "config.pbtxt", "model");
  if (settings.ok()) {
    MILLRACE_CHECK(!settings->inputs.empty() && !settings->outputs.empty() &&
                       settings->inputs.size() <= millrace::kMostTensors,
                   "A model has tensors, and not too many.");
  } else {
    MILLRACE_CHECK(absl::StrContains(settings.status().message(), "config.pbtxt"),
                   "A message says which file.");
  }
  return 0;
}
