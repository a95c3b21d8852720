// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/payload.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace millrace {
namespace {

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Read(const Payload& payload, size_t offset, size_t size) {
  std::string text(size, '?');
  payload.CopyTo(offset, {reinterpret_cast<std::byte*>(text.data()), size});
  return text;
}

TEST(Payload, EveryRangeIsCopiedFromThePiecesThatHoldIt) {
  const std::string whole = "abcdefghij";
  const std::vector<std::string> pieces = {"a", "bcd", "", "ef", "ghij"};
  Payload payload;
  for (const std::string& piece : pieces) payload.Append(Bytes(piece));
  EXPECT_EQ(payload.size(), whole.size());
  EXPECT_EQ(payload.pieces().size(), 4);  // The empty one was dropped.
  for (size_t offset = 0; offset <= whole.size(); ++offset) {
    for (size_t size = 0; offset + size <= whole.size(); ++size) {
      EXPECT_EQ(Read(payload, offset, size), whole.substr(offset, size));
    }
  }
}

TEST(Payload, EmptyOneHasNothing) {
  const Payload payload;
  EXPECT_EQ(payload.size(), 0);
  EXPECT_EQ(Read(payload, 0, 0), "");
  EXPECT_EQ(Payload(Bytes("")).pieces().size(), 0);
}

TEST(PayloadDeathTest, RangeOutsideIsAProgrammersError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string text = "abc";
  const Payload payload(Bytes(text));
  EXPECT_DEATH(Read(payload, 1, 3), "must lie inside");
}

}  // namespace
}  // namespace millrace
