// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/base/rate_limiter.h"

namespace millrace {

// What is wrong with a connection's frames.
enum class FrameFault { kNone, kMalformed, kHeaderBlock, kFlood };
inline constexpr size_t kFrameFaults = 4;

// As metrics write it; kNone has no name.
const char* NameOf(FrameFault fault);

// Looks at what a client sends over one HTTP/2 connection (RFC 9113), of which it reads the preface
// and the heads of frames, and nothing else: no header is decoded, no payload looked at. Holds the
// connection to what keeps gRPC's own reader cheap. Confined to one thread.
//
// Invariants:
//  1. What is found doesn't depend on the pieces in which the bytes come.
//  2. Up to a fault every frame is of a size, on a stream and in a place where a client may send
//     it, and no header block, the heads of its frames included, is larger than
//     `header_block_bytes`.
//  3. It keeps no byte of what it is given, but for the head of a frame that is cut off.
//
// What it leaves to gRPC, which reads these as they come: the size of DATA frames (gRPC tells its
// clients a limit that changes), the order of streams' numbers, flow control, padding.
class Http2FrameCheck {
 public:
  // By default what no client reaches that cancels all its calls together, of which gRPC lets it
  // have 1,024.
  struct Limits {
    size_t header_block_bytes = 64 << 10;
    absl::Duration header_block_time = absl::Seconds(20);  // From its first frame to its last.
    double resets_per_second = 128;                        // RST_STREAM.
    double resets_at_once = 1024;
    double pings_per_second = 1000;  // Some clients measure a fast network by one after another.
    double pings_at_once = 10'000;
    double settings_per_second = 10;
    double settings_at_once = 100;
    double empties_per_second = 100;  // DATA that brings nothing, not even its stream's end.
    double empties_at_once = 1000;
    double priorities_per_second = 256;
    double priorities_at_once = 4096;
  };

  explicit Http2FrameCheck(const Limits& limits);

  // Looks at the next bytes, which came at `now`. After a fault every call gives that fault.
  FrameFault Take(absl::string_view bytes, absl::Time now);

  // What came and what was expected. REQUIRES: Take() has given a fault.
  const std::string& why() const { return why_; }

 private:
  static constexpr size_t kHeadBytes = 9;

  struct Head {
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint32_t stream;
  };

  bool TakePreface(absl::string_view& bytes);
  void CheckHead(const Head& head, absl::Time now);
  void CheckPlace(const Head& head);
  void CheckStream(const Head& head);
  void CheckLength(const Head& head);
  void CountBlock(const Head& head, absl::Time now);
  void CountRate(const Head& head, absl::Time now);
  void Fail(FrameFault fault, std::string why);

  const Limits limits_;
  FrameFault fault_ = FrameFault::kNone;
  std::string why_;
  size_t preface_bytes_ = 0;
  std::array<uint8_t, kHeadBytes> head_;
  size_t head_bytes_ = 0;
  uint32_t payload_left_ = 0;
  bool saw_frame_ = false;
  // Of the header block that is open; stream 0 is none.
  uint32_t block_stream_ = 0;
  size_t block_bytes_ = 0;
  absl::Time block_began_;
  RateLimiter resets_;
  RateLimiter pings_;
  RateLimiter settings_;
  RateLimiter empties_;
  RateLimiter priorities_;
};

}  // namespace millrace
