// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/access/method_table.h"

namespace millrace {

// The SHA-256 of a token, so that no token is ever kept.
using TokenHash = std::array<uint8_t, 32>;

TokenHash HashOf(absl::string_view token);

// Which bearer tokens are good for what. Immutable.
class TokenTable {
 public:
  // The most bytes of a file, and of a token, that are looked at.
  static constexpr size_t kMostFileBytes = 1 << 20;
  static constexpr size_t kMostTokenBytes = 4096;

  // Reads the text of a token file: a line for each token, of the classes that it is good for
  // (infer, read, admin) with commas between them, and its SHA-256 in 64 hexadecimal digits; then,
  // if you like, whose it is. Empty lines and those that begin with '#' say nothing.
  //   infer,read  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  cameras
  // INVALID_ARGUMENT names the line, what came and what was expected; never what may be a token.
  static absl::StatusOr<TokenTable> Parse(absl::string_view text);

  // The classes that a token is good for, as a set of bits, 1 << class; 0 for a token that nobody
  // knows. Takes as long whatever token comes, be it known or not.
  uint32_t ClassesOf(absl::string_view token) const;

  size_t size() const { return tokens_.size(); }

 private:
  struct Token {
    TokenHash hash;
    uint32_t classes;
  };

  std::vector<Token> tokens_;
};

inline uint32_t BitOf(MethodClass method_class) {
  return uint32_t{1} << static_cast<uint32_t>(method_class);
}

}  // namespace millrace
