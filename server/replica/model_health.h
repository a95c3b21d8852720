// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace millrace {

// What is seen of a model at a time.
struct ModelSigns {
  absl::Status replicas;       // OK: one can serve; else why none can.
  absl::Duration unready_for;  // For how long none could.
  absl::Duration oldest_age;   // Of a request that no replica has taken; zero where there is none.
  absl::Duration silence;      // Since a batch was done.
  bool replica_due = false;    // One should take what waits, or should long have been replaced.
};

struct HealthLimits {
  absl::Duration unhealthy_after = absl::Seconds(2);
  absl::Duration stalled_after = absl::Seconds(10);
};

// Whether a model can be trusted with requests: UNAVAILABLE with the reason where no replica could
// serve for `unhealthy_after`, so that one that is just replaced isn't taken for a failure; or
// where it is stalled: requests have waited and no batch was done for `stalled_after`, though a
// replica was due. However much waits says nothing by itself.
absl::Status HealthOf(const ModelSigns& signs, const HealthLimits& limits);

}  // namespace millrace
