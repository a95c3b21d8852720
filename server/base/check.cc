// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace millrace {

void CheckFailed(const char* file, int line, const char* condition, const char* sentence) {
  std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", file, line, condition, sentence);
  std::abort();
}

}  // namespace millrace
