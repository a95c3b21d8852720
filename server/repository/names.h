// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"

namespace millrace {

// Whether the text is valid UTF-8. Protobuf strings have to be, or clients can't decode the
// message that carries them.
bool IsUtf8(absl::string_view text);

// Whether the text can name a tensor or a file: 1 to 255 bytes of UTF-8 without control characters.
bool IsName(absl::string_view text);

// Whether the text can name a model: 1 to 128 ASCII letters, digits, `_`, `-` and `.`, the first of
// them a letter, a digit or `_`. So a name is a file's name and a label's value as it stands.
bool IsModelName(absl::string_view text);

}  // namespace millrace
