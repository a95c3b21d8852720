// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/access/token_table.h"

namespace millrace {

// Decides who may call what on a listener. Immutable, thread-safe.
//
// Invariants:
//  1. A method that isn't in the method table is denied, whoever calls it.
//  2. So is one of a class that the listener doesn't offer.
//  3. What is of class kOpen needs no token; a certificate it needs where the listener demands one.
class CallerCheck {
 public:
  struct Options {
    uint32_t offered = ~uint32_t{0};  // The classes that the listener offers: BitOf() each.
    std::vector<std::string> allowed_names = {};  // Of certificates; empty: any will do.
  };
  // What is known of a caller. Names are those that its certificate stands for (subject
  // alternative names); authorization is that header's values.
  struct Caller {
    absl::Span<const absl::string_view> names = {};
    absl::Span<const absl::string_view> authorization = {};
  };

  explicit CallerCheck(Options options) : options_(std::move(options)) {}

  // OK, or why not: UNAUTHENTICATED where a token is missing or unknown, PERMISSION_DENIED where it
  // isn't good for this class, where the certificate stands for nobody who is let in, and for what
  // isn't offered. `tokens` is null where no token is needed.
  absl::Status Check(absl::string_view path, const Caller& caller, const TokenTable* tokens) const;

 private:
  const Options options_;
};

}  // namespace millrace
