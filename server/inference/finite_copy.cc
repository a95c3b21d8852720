// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/finite_copy.h"

#include <algorithm>
#include <cstring>

namespace millrace {
namespace {

// Small enough for a first-level cache, and for a count of its elements in 16 bits.
constexpr size_t kPieceBytes = 8192;

// How many elements have an exponent of all ones. `Bits` is as wide as an element, and so is the
// sum, so that the compiler makes vectors of it.
template <typename Bits, Bits kExponent>
int64_t CountIn(const std::byte* bytes, size_t size) {
  Bits count = 0;
  for (size_t at = 0; at < size; at += sizeof(Bits)) {
    Bits element;
    std::memcpy(&element, bytes + at, sizeof(element));
    count = static_cast<Bits>(count + ((element & kExponent) == kExponent ? 1 : 0));
  }
  return static_cast<int64_t>(count);
}

int64_t CountNonFinite(DataType type, const std::byte* bytes, size_t size) {
  switch (type) {
    case DataType::kFp16:
      return CountIn<uint16_t, 0x7c00>(bytes, size);
    case DataType::kBf16:
      return CountIn<uint16_t, 0x7f80>(bytes, size);
    case DataType::kFp32:
      return CountIn<uint32_t, 0x7f80'0000>(bytes, size);
    case DataType::kFp64:
      return CountIn<uint64_t, 0x7ff0'0000'0000'0000>(bytes, size);
    default:
      return 0;
  }
}

}  // namespace

int64_t CopyCountingNonFinite(DataType type, absl::Span<const std::byte> from, std::byte* to) {
  int64_t count = 0;
  for (size_t at = 0; at < from.size(); at += kPieceBytes) {
    const size_t size = std::min(kPieceBytes, from.size() - at);
    std::memcpy(to + at, from.data() + at, size);
    count += CountNonFinite(type, to + at, size);
  }
  return count;
}

}  // namespace millrace
