// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace millrace {

// The length, 1 to 4, of the UTF-8 sequence that `text` begins with; 0 where it begins with none.
// Surrogates, overlong forms and what lies beyond U+10FFFF are none. REQUIRES: !text.empty().
size_t Utf8SequenceLength(absl::string_view text);

// Whether all of `text` is UTF-8, as proto3 demands of its strings.
bool IsValidUtf8(absl::string_view text);

// `text` with every byte that is no part of a UTF-8 sequence replaced by '?'.
std::string ToValidUtf8(absl::string_view text);

}  // namespace millrace
