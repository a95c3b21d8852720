// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/payload.h"

#include <algorithm>
#include <cstring>

#include "server/base/check.h"

namespace millrace {

Payload Payload::Part(size_t offset, size_t size) const {
  MILLRACE_CHECK(offset + size <= size_, "The range must lie inside the payload.");
  Payload part;
  for (const absl::Span<const std::byte> piece : pieces_) {
    if (size == 0) break;
    if (offset >= piece.size()) {
      offset -= piece.size();
      continue;
    }
    const auto taken = piece.subspan(offset, std::min(size, piece.size() - offset));
    part.Append(taken);
    size -= taken.size();
    offset = 0;
  }
  return part;
}

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
