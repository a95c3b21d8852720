// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/http2_frame_check.h"

#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/seed.h"
#include "tests/unit/access/http2_frames.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr absl::Time kNow = absl::UnixEpoch();

// What a fresh check finds in the bytes behind a client's hello.
FrameFault FaultOf(const std::string& bytes, std::string* why = nullptr) {
  Http2FrameCheck check({});
  const FrameFault fault = check.Take(Hello() + bytes, kNow);
  if (why != nullptr) *why = check.why();
  return fault;
}

std::string Whole(uint32_t stream, size_t bytes) {
  return Frame(kHeadersFrame, kEndHeadersFlag, stream, bytes);
}

TEST(Http2FrameCheck, WhatClientsSendPasses) {
  EXPECT_EQ(
      FaultOf(Frame(kSettingsFrame, kAckFlag, 0, 0) + Frame(kWindowFrame, 0, 0, 4) + Whole(1, 300) +
              Frame(kDataFrame, 0, 1, 16'384) + Frame(kDataFrame, 0, 1, 1 << 20) +
              Frame(kDataFrame, 1, 1, 0) + Frame(kWindowFrame, 0, 1, 4) +
              Frame(kPingFrame, 0, 0, 8) + Frame(kPingFrame, kAckFlag, 0, 8) +
              Frame(kPriorityFrame, 0, 3, 5) + Frame(kHeadersFrame, 0, 3, 16'384) +
              Frame(kContinuationFrame, 0, 3, 16'384) +
              Frame(kContinuationFrame, kEndHeadersFlag, 3, 16'384) + Frame(kResetFrame, 0, 3, 4) +
              Frame(0x10, 0, 0, 20) + Frame(0xfe, 0, 7, 0) + Frame(kGoAwayFrame, 0, 0, 20)),
      FrameFault::kNone);
}

TEST(Http2FrameCheck, HeaderBlockOfAllItsFramesIsBounded) {
  const size_t most = Http2FrameCheck::Limits().header_block_bytes;
  EXPECT_EQ(FaultOf(Whole(1, most - 9) + Whole(3, most - 9)), FrameFault::kNone);
  std::string why;
  EXPECT_EQ(FaultOf(Whole(1, most - 8), &why), FrameFault::kHeaderBlock);
  EXPECT_THAT(why, HasSubstr("65537 bytes or more, expected up to 65536"));
  std::string block = Frame(kHeadersFrame, 0, 1, 16'384);
  for (int i = 0; i < 3; ++i) block += Frame(kContinuationFrame, 0, 1, 16'000);
  EXPECT_EQ(FaultOf(block + Frame(kContinuationFrame, kEndHeadersFlag, 1, 1'000)),
            FrameFault::kNone);
  EXPECT_EQ(FaultOf(block + Frame(kContinuationFrame, kEndHeadersFlag, 1, 2'000)),
            FrameFault::kHeaderBlock);
}

TEST(Http2FrameCheck, EmptyContinuationsCountToo) {
  Http2FrameCheck check({});
  ASSERT_EQ(check.Take(Hello() + Frame(kHeadersFrame, 0, 1, 0), kNow), FrameFault::kNone);
  int taken = 0;
  while (check.Take(Frame(kContinuationFrame, 0, 1, 0), kNow) == FrameFault::kNone) ++taken;
  EXPECT_EQ(taken, (64 << 10) / 9 - 1);
}

TEST(Http2FrameCheck, HeaderBlockMustBeCompleteInTime) {
  Http2FrameCheck check({});
  ASSERT_EQ(check.Take(Hello() + Frame(kHeadersFrame, 0, 1, 0), kNow), FrameFault::kNone);
  EXPECT_EQ(check.Take(Frame(kContinuationFrame, 0, 1, 0), kNow + absl::Seconds(20)),
            FrameFault::kNone);
  EXPECT_EQ(check.Take("", kNow + absl::Seconds(21)), FrameFault::kHeaderBlock);
  Http2FrameCheck other({});
  ASSERT_EQ(other.Take(Hello() + Whole(1, 1), kNow), FrameFault::kNone);
  EXPECT_EQ(other.Take(Whole(3, 1), kNow + absl::Hours(1)), FrameFault::kNone);
}

TEST(Http2FrameCheck, FramesThatClientsMayNotSendAreFound) {
  const std::string open = Frame(kHeadersFrame, 0, 1, 10);
  for (const std::string& bytes : {
           Frame(kContinuationFrame, kEndHeadersFlag, 1, 10),        // Of no block,
           Whole(1, 1) + Frame(kContinuationFrame, 0, 1, 1),         // of one that is complete,
           open + Frame(kContinuationFrame, kEndHeadersFlag, 3, 1),  // of another stream's.
           open + Frame(kDataFrame, 0, 1, 1),                        // Amid a block.
           open + Frame(kPingFrame, 0, 0, 8),
           open + open,                  //
           open + Frame(0xfe, 0, 1, 0),  //
           Frame(kDataFrame, 0, 0, 1),
           Frame(kHeadersFrame, 4, 0, 1),  // Of stream 0.
           Frame(kPriorityFrame, 0, 0, 5),
           Frame(kResetFrame, 0, 0, 4),
           Frame(kHeadersFrame, 4, 2, 1),  // Of a server's stream.
           Frame(kSettingsFrame, 0, 1, 6),
           Frame(kPingFrame, 0, 1, 8),    // Of any but stream 0.
           Frame(kGoAwayFrame, 0, 1, 8),  //
           Frame(kPriorityFrame, 0, 1, 4),
           Frame(kResetFrame, 0, 1, 5),  // Of a wrong size.
           Frame(kSettingsFrame, 0, 0, 7),
           Frame(kSettingsFrame, 1, 0, 6),
           Frame(kSettingsFrame, 0, 0, 6 * 65),
           Frame(kPingFrame, 0, 0, 7),
           Frame(kGoAwayFrame, 0, 0, 7),
           Frame(kGoAwayFrame, 0, 0, 16'385),
           Frame(kWindowFrame, 0, 0, 3),
           Frame(0xfe, 0, 1, 16'385),
           Frame(kPushFrame, 4, 1, 10),
       }) {
    std::string why;
    EXPECT_EQ(FaultOf(bytes, &why), FrameFault::kMalformed);
    EXPECT_FALSE(why.empty());
  }
}

TEST(Http2FrameCheck, WhatIsNoHttp2IsFoundAtItsFirstByte) {
  for (const std::string bytes : {"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01", "PRI * HTTP/2.1"}) {
    Http2FrameCheck check({});
    EXPECT_EQ(check.Take(bytes, kNow), FrameFault::kMalformed);
  }
  for (const std::string& first :
       {Frame(kPingFrame, 0, 0, 8), Whole(1, 1), Frame(kSettingsFrame, kAckFlag, 0, 0)}) {
    Http2FrameCheck check({});
    EXPECT_EQ(check.Take(kHttp2Preface + first, kNow), FrameFault::kMalformed);
    EXPECT_THAT(check.why(), HasSubstr("expected SETTINGS"));
  }
}

// How many frames pass at once, and after a second how many more.
std::pair<int, int> Passing(const std::string& frame) {
  Http2FrameCheck check({});
  check.Take(Hello() + Whole(1, 1), kNow);
  std::pair<int, int> passed;
  Http2FrameCheck later = check;
  while (check.Take(frame, kNow) == FrameFault::kNone) ++passed.first;
  EXPECT_EQ(check.Take("", kNow + absl::Hours(1)), FrameFault::kFlood);  // It stays.
  for (int i = 0; i < passed.first; ++i) later.Take(frame, kNow);
  while (later.Take(frame, kNow + absl::Seconds(1)) == FrameFault::kNone) ++passed.second;
  return passed;
}

TEST(Http2FrameCheck, FloodsOfCheapFramesEnd) {
  EXPECT_EQ(Passing(Frame(kResetFrame, 0, 1, 4)), std::make_pair(1024, 128));
  EXPECT_EQ(Passing(Frame(kDataFrame, 0, 1, 0)), std::make_pair(1000, 100));
  EXPECT_EQ(Passing(Frame(kPingFrame, 0, 0, 8)), std::make_pair(10'000, 1000));
  EXPECT_EQ(Passing(Frame(kSettingsFrame, 0, 0, 6)), std::make_pair(99, 10));  // One was sent.
  EXPECT_EQ(Passing(Frame(kPriorityFrame, 0, 1, 5)), std::make_pair(4096, 256));
}

TEST(Http2FrameCheck, AnswersToGrpcsOwnFramesAreNoFlood) {
  Http2FrameCheck check({});
  check.Take(Hello(), kNow);
  for (int i = 0; i < 20'000; ++i) {
    ASSERT_EQ(
        check.Take(Frame(kPingFrame, kAckFlag, 0, 8) + Frame(kSettingsFrame, kAckFlag, 0, 0), kNow),
        FrameFault::kNone);
  }
}

TEST(Http2FrameCheckProperty, PiecesMakeNoDifference) {
  std::mt19937 random(TestSeed());
  for (int round = 0; round < 300; ++round) {
    std::string bytes = Hello();
    for (int i = 0; i < 20; ++i) {
      bytes += Frame(static_cast<uint8_t>(random() % 11), static_cast<uint8_t>(random() % 8),
                     static_cast<uint32_t>(random() % 3), random() % 2 == 0 ? 4 : random() % 40);
    }
    if (round % 4 == 0) bytes[random() % bytes.size()] ^= 1;
    Http2FrameCheck whole({});
    const FrameFault fault = whole.Take(bytes, kNow);
    Http2FrameCheck pieces({});
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = 1 + random() % 12;
      pieces.Take(absl::string_view(bytes).substr(at, size), kNow);
      at += size;
    }
    EXPECT_EQ(pieces.Take("", kNow), fault);
    EXPECT_EQ(pieces.why(), whole.why());
  }
}

}  // namespace
}  // namespace millrace
