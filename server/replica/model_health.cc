// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/model_health.h"

#include "absl/strings/str_cat.h"

namespace millrace {

absl::Status HealthOf(const ModelSigns& signs, const HealthLimits& limits) {
  if (!signs.replicas.ok() && signs.unready_for >= limits.unhealthy_after) {
    return absl::UnavailableError(signs.replicas.message());
  }
  const bool waits = signs.oldest_age > limits.stalled_after;
  if (!waits || signs.silence <= limits.stalled_after || !signs.replica_due) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(
      absl::StrCat("is stalled: requests have waited for ", absl::FormatDuration(signs.oldest_age),
                   ", and no batch was done for ", absl::FormatDuration(signs.silence)));
}

}  // namespace millrace
