// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "absl/time/time.h"
#include "server/dispatch/dispatcher.h"

namespace millrace {

// Settings of the dispatcher that scenarios compare, in one place. Nullopt where this dispatcher
// has no such setting: then what is said of it is not measured, and its goals are missed.

// Batches are held for flows that are about to return.
template <typename Options>
std::optional<Options> WithHold(Options options) {
  if constexpr (requires { options.policy.hold; }) {
    options.policy.hold = decltype(options.policy.hold)::kReturners;
    return options;
  }
  return std::nullopt;
}

// A request of a lower level that has waited for so long goes first.
template <typename Options>
std::optional<Options> WithStarvationGuard(Options options, absl::Duration after) {
  if constexpr (requires { options.starvation_guard; }) {
    options.starvation_guard = after;
    return options;
  }
  static_cast<void>(after);
  return std::nullopt;
}

}  // namespace millrace
