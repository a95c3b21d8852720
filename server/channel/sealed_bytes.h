// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/base/unique_fd.h"

namespace millrace {

// Bytes that cross to a worker as a file descriptor, so that it needs no access to files: a memfd
// that nobody can change any more. Thread-compatible.
class SealedBytes {
 public:
  // Server: a memfd that holds a copy of `bytes`, of which there are some.
  static absl::StatusOr<UniqueFd> Copy(absl::Span<const std::byte> bytes);

  // Worker: maps what is behind `fd`, which stays the caller's.
  static absl::StatusOr<SealedBytes> Map(int fd);

  SealedBytes() = default;  // None.
  SealedBytes(SealedBytes&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  SealedBytes& operator=(SealedBytes&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~SealedBytes();

  absl::Span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit SealedBytes(absl::Span<std::byte> bytes) : bytes_(bytes) {}

  absl::Span<std::byte> bytes_;
};

}  // namespace millrace
