// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/utf8.h"

#include <cstdint>

namespace millrace {
namespace {

bool IsBetween(uint8_t byte, uint8_t low, uint8_t high) { return byte >= low && byte <= high; }

// The second byte's range is narrower after these: overlong forms, surrogates, above U+10FFFF.
uint8_t LowestSecond(uint8_t first) { return first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80; }
uint8_t HighestSecond(uint8_t first) { return first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF; }

}  // namespace

size_t Utf8SequenceLength(absl::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (!IsBetween(first, 0xC2, 0xF4)) return 0;
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  if (!IsBetween(byte(1), LowestSecond(first), HighestSecond(first))) return 0;
  for (size_t i = 2; i < length; ++i) {
    if (!IsBetween(byte(i), 0x80, 0xBF)) return 0;
  }
  return length;
}

bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8SequenceLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string ToValidUtf8(absl::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t length = Utf8SequenceLength(text);
    if (length == 0) {
      valid.push_back('?');
      text.remove_prefix(1);
    } else {
      valid.append(text.data(), length);
      text.remove_prefix(length);
    }
  }
  return valid;
}

}  // namespace millrace
