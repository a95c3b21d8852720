// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/picture_format.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace millrace {
namespace {

PictureFormat Detect(const std::string& bytes) {
  return DetectPictureFormat(
      Payload({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}));
}

TEST(PictureFormat, NamesLeadBack) {
  for (int i = 0; i <= static_cast<int>(PictureFormat::kI420); ++i) {
    const auto format = static_cast<PictureFormat>(i);
    EXPECT_EQ(PictureFormatFromName(PictureFormatName(format)), format);
    EXPECT_EQ(IsRaw(format), i > static_cast<int>(PictureFormat::kWebp));
  }
  EXPECT_EQ(PictureFormatFromName("jpeg"), std::nullopt);
}

TEST(PictureFormat, IsToldByTheFirstBytes) {
  EXPECT_EQ(Detect("\xFF\xD8\xFF\xE0"), PictureFormat::kJpeg);
  EXPECT_EQ(Detect("\x89PNG\r\n\x1A\n"), PictureFormat::kPng);
  EXPECT_EQ(Detect("RIFF\x01\x01\x01\x01WEBPVP8 "), PictureFormat::kWebp);
  for (const char* other : {"", "\xFF\xD8", "\x89PNG\r\n\x1A", "RIFF\x01\x01\x01\x01WEB",
                            "RIFF\x01\x01\x01\x01WAVE", "GIF89a", "BM"}) {
    EXPECT_EQ(Detect(other), PictureFormat::kDetect) << other;
  }
}

}  // namespace
}  // namespace millrace
