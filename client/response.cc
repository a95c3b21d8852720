// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/response.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace millrace {
inline namespace client {

absl::StatusOr<const Tensor*> Response::Output(const std::string& name) const {
  for (const Tensor& output : outputs) {
    if (output.name == name) return &output;
  }
  const auto append_name = [](std::string* out, const Tensor& tensor) { *out += tensor.name; };
  return absl::NotFoundError(
      absl::StrCat("model '", model, "' returned no output '", name,
                   "'; it returned: ", absl::StrJoin(outputs, ", ", append_name)));
}

}  // namespace client
}  // namespace millrace
