// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace millrace {

// Which span of which trace a request belongs to (W3C Trace Context, level 1:
// https://www.w3.org/TR/trace-context/). A plain value.
struct TraceContext {
  uint64_t trace_high = 0, trace_low = 0;  // The trace's id; not both 0.
  uint64_t span = 0;                       // Not 0.
  bool sampled = false;                    // Whoever made the trace records it.

  friend bool operator==(const TraceContext&, const TraceContext&) = default;
};

// Reads the value of a `traceparent`; nothing where it is none, as the standard says: such a one is
// to be ignored. A later version's is read as far as it is like ours.
std::optional<TraceContext> ParseTraceParent(absl::string_view text);

// Writes it: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".
std::string FormatTraceParent(const TraceContext& context);

// The trace's id alone, as 32 hexadecimal digits.
std::string FormatTraceId(const TraceContext& context);

}  // namespace millrace
