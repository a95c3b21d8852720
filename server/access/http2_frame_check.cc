// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/http2_frame_check.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

constexpr absl::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// RFC 9113, section 6. Other types are extensions, which who doesn't know them ignores.
enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kResetStream = 3,
  kSettings = 4,
  kPushPromise = 5,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
constexpr std::array<absl::string_view, 10> kNames = {
    "DATA",         "HEADERS", "PRIORITY", "RST_STREAM",    "SETTINGS",
    "PUSH_PROMISE", "PING",    "GOAWAY",   "WINDOW_UPDATE", "CONTINUATION"};

constexpr uint8_t kAck = 0x1;
constexpr uint8_t kEndStream = 0x1;
constexpr uint8_t kEndHeaders = 0x4;
constexpr uint32_t kMostOfOthers = 16'384;  // What every endpoint takes (section 4.2).
constexpr uint32_t kSettingBytes = 6;
constexpr uint32_t kMostSettings = 64;

std::string NameOfType(uint8_t type) {
  return type < kNames.size() ? std::string(kNames[type]) : absl::StrCat("frame of type ", type);
}

}  // namespace

const char* NameOf(FrameFault fault) {
  switch (fault) {
    case FrameFault::kNone:
      return "";
    case FrameFault::kMalformed:
      return "malformed";
    case FrameFault::kHeaderBlock:
      return "header_block";
    case FrameFault::kFlood:
      return "flood";
  }
  return "";
}

Http2FrameCheck::Http2FrameCheck(const Limits& limits)
    : limits_(limits),
      resets_(limits.resets_per_second, limits.resets_at_once),
      pings_(limits.pings_per_second, limits.pings_at_once),
      settings_(limits.settings_per_second, limits.settings_at_once),
      empties_(limits.empties_per_second, limits.empties_at_once),
      priorities_(limits.priorities_per_second, limits.priorities_at_once) {}

FrameFault Http2FrameCheck::Take(absl::string_view bytes, absl::Time now) {
  if (fault_ != FrameFault::kNone || !TakePreface(bytes)) return fault_;
  while (!bytes.empty() && fault_ == FrameFault::kNone) {
    if (payload_left_ > 0) {
      const size_t skipped = std::min<size_t>(payload_left_, bytes.size());
      payload_left_ -= static_cast<uint32_t>(skipped);
      bytes.remove_prefix(skipped);
      continue;
    }
    const size_t taken = std::min(kHeadBytes - head_bytes_, bytes.size());
    std::memcpy(head_.data() + head_bytes_, bytes.data(), taken);
    head_bytes_ += taken;
    bytes.remove_prefix(taken);
    if (head_bytes_ < kHeadBytes) break;
    head_bytes_ = 0;
    const Head head = {.length = uint32_t{head_[0]} << 16 | uint32_t{head_[1]} << 8 | head_[2],
                       .type = head_[3],
                       .flags = head_[4],
                       .stream = (uint32_t{head_[5]} << 24 | uint32_t{head_[6]} << 16 |
                                  uint32_t{head_[7]} << 8 | head_[8]) &
                                 0x7fffffff};
    payload_left_ = head.length;
    CheckHead(head, now);
  }
  if (fault_ == FrameFault::kNone && block_stream_ != 0 &&
      now - block_began_ > limits_.header_block_time) {
    Fail(FrameFault::kHeaderBlock, absl::StrCat("a header block isn't complete after ",
                                                absl::FormatDuration(limits_.header_block_time)));
  }
  return fault_;
}

// False while there is nothing but it, or it is wrong.
bool Http2FrameCheck::TakePreface(absl::string_view& bytes) {
  if (preface_bytes_ == kPreface.size()) return true;
  const absl::string_view expected = kPreface.substr(preface_bytes_, bytes.size());
  if (bytes.substr(0, expected.size()) != expected) {
    Fail(FrameFault::kMalformed, "it begins otherwise than HTTP/2 does");
    return false;
  }
  preface_bytes_ += expected.size();
  bytes.remove_prefix(expected.size());
  return preface_bytes_ == kPreface.size();
}

void Http2FrameCheck::CheckHead(const Head& head, absl::Time now) {
  CheckPlace(head);
  if (fault_ == FrameFault::kNone) CheckStream(head);
  if (fault_ == FrameFault::kNone) CheckLength(head);
  if (fault_ == FrameFault::kNone) CountBlock(head, now);
  if (fault_ == FrameFault::kNone) CountRate(head, now);
  saw_frame_ = true;
}

void Http2FrameCheck::CheckPlace(const Head& head) {
  if (!saw_frame_ && (head.type != kSettings || (head.flags & kAck) != 0)) {
    return Fail(FrameFault::kMalformed,
                absl::StrCat("the first frame is ", NameOfType(head.type), ", expected SETTINGS"));
  }
  if (block_stream_ != 0 && (head.type != kContinuation || head.stream != block_stream_)) {
    return Fail(FrameFault::kMalformed,
                absl::StrCat(NameOfType(head.type), " of stream ", head.stream,
                             " within the header block of stream ", block_stream_,
                             ", expected its CONTINUATION"));
  }
  if (block_stream_ == 0 && head.type == kContinuation) {
    return Fail(FrameFault::kMalformed, "CONTINUATION without a header block");
  }
  if (head.type == kPushPromise) {
    Fail(FrameFault::kMalformed, "PUSH_PROMISE, which clients don't send");
  }
}

void Http2FrameCheck::CheckStream(const Head& head) {
  switch (head.type) {
    case kSettings:
    case kPing:
    case kGoAway:
      if (head.stream == 0) return;
      break;
    case kHeaders:
      if (head.stream % 2 == 1) return;
      break;
    case kData:
    case kPriority:
    case kResetStream:
    case kContinuation:
      if (head.stream != 0) return;
      break;
    default:
      return;
  }
  Fail(FrameFault::kMalformed, absl::StrCat(NameOfType(head.type), " of stream ", head.stream));
}

void Http2FrameCheck::CheckLength(const Head& head) {
  uint32_t least = 0;
  uint32_t most = kMostOfOthers;
  switch (head.type) {
    case kData:
    case kHeaders:
    case kContinuation:
      return;  // The one is gRPC's to judge, the others count as a block.
    case kPriority:
      least = most = 5;
      break;
    case kResetStream:
    case kWindowUpdate:
      least = most = 4;
      break;
    case kPing:
      least = most = 8;
      break;
    case kGoAway:
      least = 8;
      break;
    case kSettings:
      most = (head.flags & kAck) != 0 ? 0 : kMostSettings * kSettingBytes;
      if (head.length % kSettingBytes != 0) most = 0;
      break;
    default:
      break;
  }
  if (head.length >= least && head.length <= most) return;
  Fail(FrameFault::kMalformed,
       absl::StrCat(NameOfType(head.type), " of ", head.length, " bytes, expected ",
                    least == most ? absl::StrCat(most) : absl::StrCat(least, " to ", most)));
}

void Http2FrameCheck::CountBlock(const Head& head, absl::Time now) {
  if (head.type != kHeaders && head.type != kContinuation) return;
  if (head.type == kHeaders) {
    block_stream_ = head.stream;
    block_bytes_ = 0;
    block_began_ = now;
  }
  block_bytes_ += kHeadBytes + head.length;
  if (block_bytes_ > limits_.header_block_bytes) {
    return Fail(FrameFault::kHeaderBlock,
                absl::StrCat("a header block of ", block_bytes_, " bytes or more, expected up to ",
                             limits_.header_block_bytes));
  }
  if ((head.flags & kEndHeaders) != 0) block_stream_ = 0;
}

void Http2FrameCheck::CountRate(const Head& head, absl::Time now) {
  bool within = true;
  const bool is_ack = (head.flags & kAck) != 0;  // They answer what gRPC has asked.
  switch (head.type) {
    case kData:
      within = head.length > 0 || (head.flags & kEndStream) != 0 || empties_.Take(now);
      break;
    case kResetStream:
      within = resets_.Take(now);
      break;
    case kPing:
      within = is_ack || pings_.Take(now);
      break;
    case kSettings:
      within = is_ack || settings_.Take(now);
      break;
    case kPriority:
      within = priorities_.Take(now);
      break;
    default:
      break;
  }
  if (within) return;
  Fail(FrameFault::kFlood, absl::StrCat("more ", NameOfType(head.type), " than a client needs"));
}

void Http2FrameCheck::Fail(FrameFault fault, std::string why) {
  fault_ = fault;
  why_ = std::move(why);
}

}  // namespace millrace
