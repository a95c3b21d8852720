// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace millrace {

// Who decides which models are served.
struct ModelControl {
  enum class Mode {
    kNone,      // Everything that is on disk at start.
    kExplicit,  // What is named at start, then whoever calls RepositoryModelLoad and …Unload.
    kWatch,     // What is on disk: changes there are followed.
  };

  Mode mode = Mode::kNone;
  std::vector<std::string> load_at_start;           // kExplicit: names; "*" is all.
  absl::Duration settle_time = absl::Seconds(2);    // kWatch: of no change, before one is acted on.
  absl::Duration poll_interval = absl::Seconds(5);  // kWatch: where changes can't be told.
};

}  // namespace millrace
