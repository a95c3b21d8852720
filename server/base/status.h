// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the calling function when `expression` yields a status that is not OK.
#define MILLRACE_RETURN_IF_ERROR(expression)                                  \
  do {                                                                        \
    if (absl::Status millrace_status = (expression); !millrace_status.ok()) { \
      return millrace_status;                                                 \
    }                                                                         \
  } while (false)

#define MILLRACE_CONCAT_INNER(a, b) a##b
#define MILLRACE_CONCAT(a, b) MILLRACE_CONCAT_INNER(a, b)

// Assigns the value of a StatusOr to `target` (which may be a declaration), or returns its status.
#define MILLRACE_ASSIGN_OR_RETURN(target, expression) \
  MILLRACE_ASSIGN_OR_RETURN_INNER(MILLRACE_CONCAT(millrace_or_, __LINE__), target, expression)
#define MILLRACE_ASSIGN_OR_RETURN_INNER(or_value, target, expression) \
  auto or_value = (expression);                                       \
  if (!or_value.ok()) return or_value.status();                       \
  target = *std::move(or_value)

namespace millrace {

// `status` with `prefix` and ": " put before its message; OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view prefix);

// The status for a failed system call: `what` and the text of `error` (an errno value).
absl::Status ErrnoStatus(int error, absl::string_view what);

}  // namespace millrace
