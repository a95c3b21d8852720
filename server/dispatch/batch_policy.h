// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"

namespace millrace {

// Whether a free replica waits a moment for requests that are not there yet.
enum class Hold {
  kNone,
  kReturners,  // Those of streams that are about to send their next one.
};

// When a batch may go: the part of the dispatcher to change for another batching strategy. Pure
// functions of the state and the time.
struct BatchPolicy {
  std::vector<int64_t> preferred_sizes = {};              // Rows; reached exactly, a batch goes.
  absl::Duration max_queue_delay = absl::ZeroDuration();  // How long a batch may wait to grow.

  // A staged batch, as far as the decision needs it.
  struct State {
    int64_t rows = 0;
    bool closed = false;  // Nobody else can join.
    absl::Time oldest_arrival;
  };

  // The time from which a free replica takes the batch; in the past: at once. Without a delay a
  // free replica never waits.
  absl::Time GoAt(const State& state) const;
};

}  // namespace millrace
