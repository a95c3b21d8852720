// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/status.h"

#include <system_error>

#include "absl/strings/str_cat.h"

namespace millrace {

absl::Status Annotate(const absl::Status& status, absl::string_view prefix) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(prefix, ": ", status.message()));
}

absl::Status ErrnoStatus(int error, absl::string_view what) {
  return absl::InternalError(
      absl::StrCat(what, ": ", std::generic_category().message(error), " (errno ", error, ")"));
}

}  // namespace millrace
