// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/payload.h"

#include <algorithm>
#include <cstring>

#include "server/base/check.h"

namespace millrace {

void Payload::CopyTo(size_t offset, absl::Span<std::byte> into) const {
  MILLRACE_CHECK(offset + into.size() <= size_, "The range must lie inside the payload.");
  std::byte* to = into.data();
  size_t left = into.size();
  for (absl::Span<const std::byte> piece : pieces_) {
    if (left == 0) return;
    if (offset >= piece.size()) {
      offset -= piece.size();
      continue;
    }
    const size_t count = std::min(left, piece.size() - offset);
    std::memcpy(to, piece.data() + offset, count);
    to += count;
    left -= count;
    offset = 0;
  }
}

}  // namespace millrace
