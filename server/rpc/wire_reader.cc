// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/wire_reader.h"

#include <algorithm>
#include <cstring>

namespace millrace {
namespace {

constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kLengthDelimited = 2;
constexpr uint32_t kStartGroup = 3;
constexpr uint32_t kEndGroup = 4;
constexpr uint32_t kFixed32 = 5;

}  // namespace

WireReader::WireReader(absl::Span<const grpc::Slice> slices) : next_(slices.data()) {
  for (const grpc::Slice& slice : slices) left_ += slice.size();
}

void WireReader::NextSlice() {
  at_ = next_->begin();
  stop_ = next_->end();
  ++next_;
}

template <typename Take>
bool WireReader::ForEachPiece(size_t length, Take take) {
  if (length > left_) return false;
  left_ -= length;
  while (length > 0) {
    if (at_ == stop_) {
      NextSlice();
      continue;
    }
    const size_t count = std::min(length, static_cast<size_t>(stop_ - at_));
    take(at_, count);
    at_ += count;
    length -= count;
  }
  return true;
}

bool WireReader::ReadByte(uint8_t* byte) {
  if (left_ == 0) return false;
  while (at_ == stop_) NextSlice();
  *byte = *at_++;
  --left_;
  return true;
}

// A tag takes at most five bytes; what goes beyond 32 bits is dropped.
bool WireReader::ReadRawTag(uint32_t* tag) {
  uint32_t value = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    uint8_t byte = 0;
    if (!ReadByte(&byte)) return false;
    value |= static_cast<uint32_t>(byte & 0x7F) << shift;
    if (byte < 0x80) {
      *tag = value;
      return value >> 3 != 0;
    }
  }
  return false;
}

bool WireReader::ReadTag(uint32_t* tag) { return ReadRawTag(tag) && (*tag & 7) != kEndGroup; }

// A varint takes at most ten bytes; what goes beyond 64 bits is dropped.
bool WireReader::ReadVarint(uint64_t* value) {
  uint64_t result = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    uint8_t byte = 0;
    if (!ReadByte(&byte)) return false;
    result |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) {
      *value = result;
      return true;
    }
  }
  return false;
}

bool WireReader::ReadFixed32(uint32_t* value) {
  uint32_t result = 0;
  for (int shift = 0; shift < 32; shift += 8) {
    uint8_t byte = 0;
    if (!ReadByte(&byte)) return false;
    result |= static_cast<uint32_t>(byte) << shift;
  }
  *value = result;
  return true;
}

bool WireReader::ReadFixed64(uint64_t* value) {
  uint32_t low = 0;
  uint32_t high = 0;
  if (!ReadFixed32(&low) || !ReadFixed32(&high)) return false;
  *value = static_cast<uint64_t>(high) << 32 | low;
  return true;
}

// A length takes at most five bytes and 31 bits.
bool WireReader::ReadLength(size_t* length) {
  uint32_t value = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    uint8_t byte = 0;
    if (!ReadByte(&byte)) return false;
    if (shift == 28 && byte >= 8) return false;
    value |= static_cast<uint32_t>(byte & 0x7F) << shift;
    if (byte < 0x80) {
      *length = value;
      return value <= left_;
    }
  }
  return false;
}

bool WireReader::ReadText(size_t length, std::string* text) {
  text->clear();
  return ForEachPiece(length, [text](const uint8_t* bytes, size_t count) {
    text->append(reinterpret_cast<const char*>(bytes), count);
  });
}

bool WireReader::ReadPayload(size_t length, Payload* payload) {
  return ForEachPiece(length, [payload](const uint8_t* bytes, size_t count) {
    payload->Append({reinterpret_cast<const std::byte*>(bytes), count});
  });
}

bool WireReader::Enter(size_t* outer) {
  size_t length = 0;
  if (!ReadLength(&length) || depth_ == 0) return false;
  --depth_;
  *outer = left_ - length;
  left_ = length;
  return true;
}

bool WireReader::Leave(size_t outer) {
  if (left_ != 0) return false;
  ++depth_;
  left_ = outer;
  return true;
}

bool WireReader::Skip(size_t length) {
  return ForEachPiece(length, [](const uint8_t*, size_t) {});
}

bool WireReader::SkipField(uint32_t tag) {
  uint64_t ignored = 0;
  size_t length = 0;
  switch (tag & 7) {
    case kVarint:
      return ReadVarint(&ignored);
    case kFixed64:
      return Skip(8);
    case kLengthDelimited:
      return ReadLength(&length) && Skip(length);
    case kStartGroup:
      return SkipGroup(tag >> 3);
    case kFixed32:
      return Skip(4);
    default:
      return false;
  }
}

// Recurses at most `depth_` deep.
bool WireReader::SkipGroup(uint32_t number) {
  if (depth_ == 0) return false;
  --depth_;
  uint32_t tag = 0;
  while (ReadRawTag(&tag)) {
    if ((tag & 7) == kEndGroup) {
      ++depth_;
      return tag >> 3 == number;
    }
    if (!SkipField(tag)) return false;
  }
  return false;
}

}  // namespace millrace
