// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace millrace {

// Prints the failed condition, its place and `sentence` on stderr, and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const char* sentence);

}  // namespace millrace

// Ends the process when a programmer's assumption doesn't hold. Never for bad input or an
// operating error: those are absl::Status.
#define MILLRACE_CHECK(condition, sentence) \
  ((condition) ? static_cast<void>(0)       \
               : ::millrace::CheckFailed(__FILE__, __LINE__, #condition, sentence))
