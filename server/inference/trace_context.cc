// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/trace_context.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// Reads lower-case hexadecimal digits, at most 16.
bool ReadHex(absl::string_view text, uint64_t* number) {
  *number = 0;
  return std::all_of(text.begin(), text.end(), [number](char c) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'a' && c <= 'f')) return false;
    *number = *number << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
    return true;
  });
}

}  // namespace

std::optional<TraceContext> ParseTraceParent(absl::string_view text) {
  // version "-" trace-id "-" parent-id "-" flags: 2, 32, 16 and 2 digits.
  constexpr size_t kLength = 55;
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') {
    return std::nullopt;
  }
  TraceContext context;
  uint64_t version = 0;
  uint64_t flags = 0;
  if (!ReadHex(text.substr(0, 2), &version) || !ReadHex(text.substr(3, 16), &context.trace_high) ||
      !ReadHex(text.substr(19, 16), &context.trace_low) ||
      !ReadHex(text.substr(36, 16), &context.span) || !ReadHex(text.substr(53, 2), &flags)) {
    return std::nullopt;
  }
  const bool longer = text.size() > kLength;
  if (version == 0xff || (version == 0 && longer) || (longer && text[kLength] != '-')) {
    return std::nullopt;
  }
  if ((context.trace_high == 0 && context.trace_low == 0) || context.span == 0) return std::nullopt;
  context.sampled = (flags & 1) != 0;
  return context;
}

std::string FormatTraceParent(const TraceContext& context) {
  return absl::StrCat("00-", FormatTraceId(context), "-", absl::Hex(context.span, absl::kZeroPad16),
                      "-", context.sampled ? "01" : "00");
}

std::string FormatTraceId(const TraceContext& context) {
  return absl::StrCat(absl::Hex(context.trace_high, absl::kZeroPad16),
                      absl::Hex(context.trace_low, absl::kZeroPad16));
}

}  // namespace millrace
