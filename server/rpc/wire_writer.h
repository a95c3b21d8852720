// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"

namespace millrace {

// Writes protobuf's wire format, in two passes: a function template that writes a message is called
// with a WireSize first and with a WireWriter over that many bytes then. Thread-compatible.

// How many bytes would be written.
class WireSize {
 public:
  void Byte(uint8_t) { ++size_; }
  void Bytes(const void*, size_t count) { size_ += count; }
  size_t size() const { return size_; }

 private:
  size_t size_ = 0;
};

// Writes from `to` on. REQUIRES: the space suffices.
class WireWriter {
 public:
  explicit WireWriter(uint8_t* to) : to_(to) {}

  void Byte(uint8_t byte) { *to_++ = byte; }
  void Bytes(const void* bytes, size_t count) {
    if (count > 0) std::memcpy(to_, bytes, count);
    to_ += count;
  }

 private:
  uint8_t* to_;
};

template <typename Out>
void WriteVarint(Out& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.Byte(static_cast<uint8_t>(value | 0x80));
  out.Byte(static_cast<uint8_t>(value));
}

// The tag and length of a string, bytes or message of `size` bytes, which are to follow.
template <typename Out>
void WriteLengthPrefix(Out& out, uint32_t field, size_t size) {
  WriteVarint(out, field << 3 | 2);
  WriteVarint(out, size);
}

// A varint field.
template <typename Out>
void WriteVarintField(Out& out, uint32_t field, uint64_t value) {
  WriteVarint(out, field << 3);
  WriteVarint(out, value);
}

// A double field, little-endian as the machine.
template <typename Out>
void WriteDoubleField(Out& out, uint32_t field, double value) {
  WriteVarint(out, field << 3 | 1);
  out.Bytes(&value, sizeof(value));
}

// A string field; nothing where it is empty.
template <typename Out>
void WriteText(Out& out, uint32_t field, absl::string_view text) {
  if (text.empty()) return;
  WriteLengthPrefix(out, field, text.size());
  out.Bytes(text.data(), text.size());
}

// A message field; `write(out)` writes what is in it, into any Out.
template <typename Out, typename Write>
void WriteMessage(Out& out, uint32_t field, Write write) {
  WireSize size;
  write(size);
  WriteLengthPrefix(out, field, size.size());
  write(out);
}

}  // namespace millrace
