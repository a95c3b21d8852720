// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/names.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/ascii.h"

namespace millrace {
namespace {

// Bytes of the character that begins with `lead`; 0 where none does.
size_t CharacterLength(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  if (lead >= 0xf0 && lead < 0xf5) return 4;
  return 0;
}

// Whether the byte after `lead` keeps the character out of overlong forms, surrogates and what
// lies beyond U+10FFFF.
bool SecondByteFits(uint8_t lead, uint8_t second) {
  if (lead == 0xe0) return second >= 0xa0;
  if (lead == 0xed) return second < 0xa0;
  if (lead == 0xf0) return second >= 0x90;
  if (lead == 0xf4) return second < 0x90;
  return true;
}

bool IsControl(char c) {
  const auto byte = static_cast<uint8_t>(c);
  return byte < 0x20 || byte == 0x7f;
}

}  // namespace

bool IsUtf8(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    const size_t length = CharacterLength(byte(i));
    if (length == 0 || text.size() - i < length) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    }
    if (length > 1 && !SecondByteFits(byte(i), byte(i + 1))) return false;
    i += length;
  }
  return true;
}

bool IsName(absl::string_view text) {
  constexpr size_t kMostBytes = 255;
  return !text.empty() && text.size() <= kMostBytes && IsUtf8(text) &&
         std::none_of(text.begin(), text.end(), IsControl);
}

bool IsModelName(absl::string_view text) {
  constexpr size_t kMostBytes = 128;
  const auto fits = [](char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.';
  };
  return !text.empty() && text.size() <= kMostBytes && text.front() != '-' && text.front() != '.' &&
         std::all_of(text.begin(), text.end(), fits);
}

}  // namespace millrace
