// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csetjmp>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace millrace {

// Runs calls of C libraries whose error handlers must not return. Thread-compatible.
class GuardedCall {
 public:
  // Runs `call`; false where it ended in Fail(). Fail() runs no destructors: what `call` and all
  // that it calls define has none.
  bool Run(absl::FunctionRef<void()> call);

  // Ends the Run() that is under way.
  [[noreturn]] void Fail(absl::string_view message);

  // What the last Fail() said, bounded.
  std::string message() const { return message_; }

 private:
  std::jmp_buf jump_;
  char message_[200] = {};
};

}  // namespace millrace
