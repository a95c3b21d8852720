// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/orientation.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/fakes/picture_files.h"

namespace millrace {
namespace {

absl::Span<const std::byte> Bytes(const std::vector<uint8_t>& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

TEST(Orientation, IsReadInBothByteOrdersWithOrWithoutThePrefix) {
  for (const bool big_endian : {false, true}) {
    for (uint16_t orientation = 1; orientation <= 8; ++orientation) {
      const std::vector<uint8_t> block = ExifBlock(orientation, big_endian);
      EXPECT_EQ(ReadOrientation(Bytes(block)), orientation);
      EXPECT_EQ(ReadOrientation(Bytes(block).subspan(6)), orientation);
    }
  }
}

TEST(Orientation, IsUprightWhereTheBlockTellsNone) {
  for (const uint16_t orientation : {0, 9, 65535}) {
    EXPECT_EQ(ReadOrientation(Bytes(ExifBlock(orientation))), 1);
  }
  const std::vector<uint8_t> block = ExifBlock(6);
  for (size_t size = 0; size < 24; ++size) {  // Up to the value.
    EXPECT_EQ(ReadOrientation(Bytes(block).first(size)), 1) << size;
  }
}

// As the standard draws them: where the pixel that is shown at (x, y) is stored.
TEST(Orientation, EveryPixelIsShownWhereItBelongs) {
  constexpr int kWidth = 71;  // More than a square of the copy.
  constexpr int kHeight = 45;
  for (int orientation = 1; orientation <= 8; ++orientation) {
    Picture stored(kWidth, kHeight, 8 * kWidth, 8 * kHeight - 3, 0.125);
    for (int y = 0; y < kHeight; ++y) {
      for (int x = 0; x < kWidth; ++x) {
        uint8_t* const pixel = stored.row(y) + 3 * x;
        pixel[0] = static_cast<uint8_t>(x);
        pixel[1] = static_cast<uint8_t>(y);
        pixel[2] = static_cast<uint8_t>(x + y);
      }
    }
    const Picture shown = Oriented(std::move(stored), orientation);
    const bool swaps = orientation > 4;
    ASSERT_EQ(shown.width(), swaps ? kHeight : kWidth);
    ASSERT_EQ(shown.height(), swaps ? kWidth : kHeight);
    EXPECT_EQ(shown.original_width(), swaps ? 8 * kHeight - 3 : 8 * kWidth);
    EXPECT_EQ(shown.original_height(), swaps ? 8 * kWidth : 8 * kHeight - 3);
    EXPECT_EQ(shown.scale(), 0.125);
    for (int y = 0; y < shown.height(); ++y) {
      for (int x = 0; x < shown.width(); ++x) {
        const int right = kWidth - 1;
        const int below = kHeight - 1;
        const std::pair<int, int> places[] = {
            {x, y}, {right - x, y}, {right - x, below - y}, {x, below - y},
            {y, x}, {y, below - x}, {right - y, below - x}, {right - y, x}};
        const auto [stored_x, stored_y] = places[orientation - 1];
        const uint8_t* const pixel = shown.row(y) + 3 * x;
        ASSERT_EQ(pixel[0], stored_x) << orientation << ": " << x << " " << y;
        ASSERT_EQ(pixel[1], stored_y) << orientation << ": " << x << " " << y;
        ASSERT_EQ(pixel[2], stored_x + stored_y);
      }
    }
  }
}

}  // namespace
}  // namespace millrace
