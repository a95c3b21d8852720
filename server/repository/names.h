// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"

namespace millrace {

// Whether the text is valid UTF-8. Protobuf strings have to be, or clients can't decode the
// message that carries them.
bool IsUtf8(absl::string_view text);

// Whether the text can name a model or a tensor: 1 to 255 bytes of UTF-8 without control
// characters.
bool IsName(absl::string_view text);

}  // namespace millrace
