// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/guarded_call.h"

#include <algorithm>
#include <cstring>

namespace millrace {

bool GuardedCall::Run(absl::FunctionRef<void()> call) {
  if (setjmp(jump_) != 0) return false;
  call();
  return true;
}

void GuardedCall::Fail(absl::string_view message) {
  const size_t size = std::min(message.size(), sizeof(message_) - 1);
  std::memcpy(message_, message.data(), size);
  message_[size] = '\0';
  std::longjmp(jump_, 1);
}

}  // namespace millrace
