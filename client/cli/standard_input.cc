// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/standard_input.h"

#include <unistd.h>

#include <cerrno>

#include "client/cli/interrupts.h"

namespace millrace {
inline namespace client {

StandardInput::int_type StandardInput::underflow() {
  ssize_t got = -1;
  do {
    if (!WaitForInput(STDIN_FILENO)) return traits_type::eof();
    got = read(STDIN_FILENO, buffer_.data(), buffer_.size());
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return traits_type::eof();
  setg(buffer_.data(), buffer_.data(), buffer_.data() + got);
  return traits_type::to_int_type(buffer_[0]);
}

}  // namespace client
}  // namespace millrace
