// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/shape.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace millrace {

std::optional<int64_t> ElementCount(absl::Span<const int64_t> dims) {
  int64_t count = 1;
  bool overflow = false;
  bool zero = false;
  for (const int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    zero |= dim == 0;
    overflow |= __builtin_mul_overflow(count, dim, &count);
  }
  if (zero) return 0;
  if (overflow) return std::nullopt;
  return count;
}

std::string ToString(absl::Span<const int64_t> dims) {
  return absl::StrCat("[", absl::StrJoin(dims, ","), "]");
}

}  // namespace millrace
