// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "server/inference/trace_context.h"

namespace millrace {

// What goes with a request of which somebody wants to know how it fared, and with its answer; most
// have none of it. A plain value.
struct RequestTrace {
  TraceContext context;      // The server's own span.
  uint64_t parent_span = 0;  // The client's; 0: the trace begins here.
  bool to_client = false;    // The client brought a context, and is told ours.
  bool to_file = false;
  bool to_log = false;
  std::string peer;    // The client's address, where it goes to the log.
  std::string stream;  // Its stream's name, where it has one.
};

}  // namespace millrace
