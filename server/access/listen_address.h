// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace {

// Where to listen, and what goes with it: "0.0.0.0:8001?guard=on", as an operator writes it.
struct ListenAddress {
  std::string address;  // host:port or unix:/path; not looked at.
  bool guard = false;   // Whether HTTP/2 is looked at before gRPC reads it; see GuardRelay.
};

// INVALID_ARGUMENT where an option is unknown, or has no value that it may have. An option is what
// stands behind the last question mark and has an equals sign.
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text);

}  // namespace millrace
