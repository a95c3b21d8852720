// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace millrace {

// What a client sends over HTTP/2, as bytes.
inline constexpr char kHttp2Preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
inline constexpr uint8_t kEndHeadersFlag = 0x4;
inline constexpr uint8_t kAckFlag = 0x1;

enum Http2Type : uint8_t {
  kDataFrame,
  kHeadersFrame,
  kPriorityFrame,
  kResetFrame,
  kSettingsFrame,
  kPushFrame,
  kPingFrame,
  kGoAwayFrame,
  kWindowFrame,
  kContinuationFrame
};

inline std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, size_t bytes) {
  const auto byte = [](size_t value) { return static_cast<char>(value & 0xff); };
  return std::string{byte(bytes >> 16),       byte(bytes >> 8),         byte(bytes),
                     static_cast<char>(type), static_cast<char>(flags), byte(stream >> 24),
                     byte(stream >> 16),      byte(stream >> 8),        byte(stream)} +
         std::string(bytes, 'x');
}

// How every client begins.
inline std::string Hello() { return kHttp2Preface + Frame(kSettingsFrame, 0, 0, 6); }

}  // namespace millrace
