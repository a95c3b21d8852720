// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/input_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace millrace {
namespace {

// The number right behind the first `mark` in `text`, which is cut behind it.
template <typename Number>
bool TakeNumber(absl::string_view& text, absl::string_view mark, Number& number) {
  const size_t at = text.find(mark);
  if (at == absl::string_view::npos) return false;
  text.remove_prefix(at + mark.size());
  const auto end = std::find_if(text.begin() + (absl::StartsWith(text, "-") ? 1 : 0), text.end(),
                                [](unsigned char c) { return !absl::ascii_isdigit(c); });
  const auto size = static_cast<size_t>(end - text.begin());
  if (!absl::SimpleAtoi(text.substr(0, size), &number)) return false;
  text.remove_prefix(size);
  return true;
}

}  // namespace

std::optional<InputFault> ParseInputFault(absl::string_view text) {
  struct Pattern {
    InputFault::Kind kind;
    absl::string_view words;     // Behind "input_handles[0]: ".
    absl::string_view expected;  // Before the value.
  };
  static constexpr Pattern kPatterns[] = {
      {InputFault::Kind::kDataType, "unmatched dtype, ", "expected: "},
      {InputFault::Kind::kDim, "unmatched dim value at ", "expected: "},
      {InputFault::Kind::kDimTooSmall, "dim value is too small at ", "expected it to be >= "},
      {InputFault::Kind::kDimTooLarge, "dim value is too large at ", "expected to be <= "},
      {InputFault::Kind::kStride, "unmatched stride value at ", "expected: "},
      {InputFault::Kind::kDevice, "unmatched device type, ", "expected: "},
  };
  InputFault fault;
  if (!TakeNumber(text, "input_handles[", fault.input)) return std::nullopt;
  if (!absl::StartsWith(text, "]: ")) return std::nullopt;
  text.remove_prefix(3);
  for (const Pattern& pattern : kPatterns) {
    if (!absl::StartsWith(text, pattern.words)) continue;
    fault.kind = pattern.kind;
    if (absl::EndsWith(pattern.words, " at ") && !TakeNumber(text, pattern.words, fault.dim)) {
      return std::nullopt;
    }
    if (!TakeNumber(text, pattern.expected, fault.expected)) return std::nullopt;
    return fault;
  }
  return std::nullopt;
}

}  // namespace millrace
