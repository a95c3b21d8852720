// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include "server/dispatch/dispatcher.h"

namespace millrace {

// Settings of the dispatcher that simulations and property tests switch on, in one place.

// A batch may wait for so long to grow.
inline Dispatcher::Options WithDelay(Dispatcher::Options options, absl::Duration delay) {
  options.policy.max_queue_delay = delay;
  return options;
}

// Batches are held for flows that are about to return.
inline Dispatcher::Options WithHold(Dispatcher::Options options) {
  options.policy.hold = Hold::kReturners;
  return options;
}

// A request of a lower level that has waited for so long goes first.
inline Dispatcher::Options WithStarvationGuard(Dispatcher::Options options, absl::Duration after) {
  options.starvation_guard = after;
  return options;
}

}  // namespace millrace
