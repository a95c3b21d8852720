// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <streambuf>

namespace millrace {
inline namespace client {

// Standard input for a stream, which ends when the run is interrupted, also while nothing comes.
class StandardInput final : public std::streambuf {
 private:
  int_type underflow() override;

  std::array<char, 1 << 16> buffer_;
};

}  // namespace client
}  // namespace millrace
