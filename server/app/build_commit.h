// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"

namespace millrace {

// The commit that this program was built from, as CMake found it when it last configured the build:
// abbreviated, ending in `-dirty` where files differed from it; `unknown` outside git. Its source
// is generated, so that another commit compiles that one file anew. Lives for ever.
absl::string_view BuildCommit();

}  // namespace millrace
