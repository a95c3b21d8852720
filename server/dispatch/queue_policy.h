// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace millrace {

// The limits of the requests of one priority level, in the terms of Triton's ModelQueuePolicy.
struct QueuePolicy {
  enum class TimeoutAction {
    kReject,  // A request that has waited too long is answered DEADLINE_EXCEEDED.
    kDelay,   // It runs after those of its level that have not.
  };

  int64_t max_rows = 0;  // That wait; 0: as many as the dispatcher's options say.
  TimeoutAction timeout_action = TimeoutAction::kReject;
  // How long a request may wait until a replica takes it.
  absl::Duration default_timeout = absl::InfiniteDuration();
  // Whether a request's own timeout takes the place of the default one where it is shorter.
  bool allow_timeout_override = false;
};

}  // namespace millrace
