// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"

namespace millrace {

// The bytes of one tensor as they were received: pieces in order, not owned. Whoever holds the
// request keeps the memory (Request::payload_owner). Thread-compatible.
class Payload {
 public:
  Payload() = default;
  explicit Payload(absl::Span<const std::byte> piece) { Append(piece); }

  // Adds a piece at the end; empty ones are dropped.
  void Append(absl::Span<const std::byte> piece) {
    if (piece.empty()) return;
    pieces_.push_back(piece);
    size_ += piece.size();
  }

  // Bytes in all pieces.
  size_t size() const { return size_; }

  absl::Span<const absl::Span<const std::byte>> pieces() const { return pieces_; }

  // The bytes [offset, offset + size) as a payload of their own, of the same memory.
  // REQUIRES: offset + size <= size().
  Payload Part(size_t offset, size_t size) const;

  // Copies the bytes [offset, offset + into.size()) to `into`.
  // REQUIRES: offset + into.size() <= size().
  void CopyTo(size_t offset, absl::Span<std::byte> into) const;

 private:
  absl::InlinedVector<absl::Span<const std::byte>, 2> pieces_;
  size_t size_ = 0;
};

}  // namespace millrace
