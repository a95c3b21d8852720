// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whatever a client sends, in whatever pieces, the guard finds the same; and where it finds
// nothing, a plain reading of the whole finds nothing either that gRPC must be spared. The first
// byte says how the rest is cut.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "server/access/http2_frame_check.h"
#include "server/base/check.h"

namespace millrace {
namespace {

constexpr size_t kPrefaceBytes = 24;
constexpr size_t kMostOfABlock = 500;  // Few, since inputs are short.

// Frames as they stand in the bytes.
void CheckPassed(const uint8_t* data, size_t size) {
  size_t block = 0;
  uint32_t open = 0;
  for (size_t at = kPrefaceBytes; at + 9 <= size;) {
    const uint8_t* const head = data + at;
    const size_t length = size_t{head[0]} << 16 | size_t{head[1]} << 8 | head[2];
    const uint32_t stream = (uint32_t{head[5]} & 0x7f) << 24 | uint32_t{head[6]} << 16 |
                            uint32_t{head[7]} << 8 | head[8];
    const bool continues = head[3] == 9;
    MILLRACE_CHECK(continues == (open != 0), "A block is continued, and by nothing else.");
    MILLRACE_CHECK(!continues || stream == open, "A block is of one stream.");
    if (head[3] == 1 || continues) {
      MILLRACE_CHECK(stream != 0, "Headers are of a stream.");
      block = (continues ? block : 0) + 9 + length;
      MILLRACE_CHECK(block <= kMostOfABlock, "A block is bounded.");
      open = (head[4] & 4) != 0 ? 0 : stream;
    }
    at += 9 + length;
  }
}

}  // namespace
}  // namespace millrace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millrace;
  if (size == 0) return 0;
  const size_t step = std::max<size_t>(1, *data++);
  --size;
  const auto* const bytes = reinterpret_cast<const char*>(data);
  const Http2FrameCheck::Limits limits = {.header_block_bytes = kMostOfABlock,
                                          .resets_at_once = 3,
                                          .pings_at_once = 3,
                                          .settings_at_once = 3,
                                          .priorities_at_once = 3};
  Http2FrameCheck whole(limits);
  const FrameFault fault = whole.Take({bytes, size}, absl::UnixEpoch());
  Http2FrameCheck pieces(limits);
  for (size_t at = 0; at < size; at += step) {
    pieces.Take({bytes + at, std::min(step, size - at)}, absl::UnixEpoch());
  }
  MILLRACE_CHECK(pieces.Take({}, absl::UnixEpoch()) == fault, "Pieces make no difference.");
  MILLRACE_CHECK(pieces.why() == whole.why(), "Nor for why.");
  MILLRACE_CHECK((fault == FrameFault::kNone) == whole.why().empty(), "A fault has a reason.");
  if (fault == FrameFault::kNone) CheckPassed(data, size);
  return 0;
}
