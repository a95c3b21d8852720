// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace millrace {

// What the exception that is being handled says, as a status: RESOURCE_EXHAUSTED where memory ran
// out, FAILED_PRECONDITION where the model isn't deterministic, as its config wants it to be, else
// INTERNAL with the model's own message, without C++ stack traces. Call in a handler.
absl::Status StatusOfException();

// `message` cut in its middle to at most `most` bytes, at the borders of UTF-8 characters: the
// beginning says where a model failed, the end why.
std::string Shortened(const std::string& message, size_t most);

// Runs `call`, which runs libtorch or a model, and turns what it throws into a status. `call`
// returns a StatusOr or a Status. This is the one place where libtorch's exceptions end.
template <typename Call>
std::invoke_result_t<Call> CatchModelErrors(Call&& call) {
  try {
    return std::forward<Call>(call)();
  } catch (...) {
    return StatusOfException();
  }
}

}  // namespace millrace
