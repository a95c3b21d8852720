// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/contact_sheet.h"

#include <vector>

#include "client/video/pixel_scaler.h"
#include "client/video/video_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/temporary_folder.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;

// Offers `count` pictures, each of its number's grey; returns the greys on the sheet, in order.
std::vector<int> Greys(int pictures, int count) {
  ContactSheet sheet(pictures);
  for (int i = 0; i < count; ++i) {
    if (!sheet.Wants()) {
      sheet.Skip();
      continue;
    }
    EXPECT_TRUE(sheet.Add({32, 16, std::string(size_t{32} * 16 * 3, static_cast<char>(i))}).ok());
  }
  const Image image = sheet.Render();
  std::vector<int> greys;
  for (int y = 84; y < image.height; y += 164) {  // The middles of the tiles.
    for (int x = 164; x < image.width; x += 324) {
      greys.push_back(static_cast<uint8_t>(image.pixels[size_t{3} * (y * image.width + x)]));
    }
  }
  return greys;
}

TEST(ContactSheet, ShowsPicturesFromAllOverTheRun) {
  EXPECT_THAT(Greys(4, 4), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Greys(4, 7), ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(Greys(4, 200), ElementsAre(0, 64, 128, 192));
}

TEST(ContactSheet, IsAsLargeAsItsPicturesNeed) {
  EXPECT_THAT(Greys(4, 0), ElementsAre());
  EXPECT_THAT(Greys(4, 1), ElementsAre(0));
  EXPECT_THAT(Greys(9, 3), ElementsAre(0, 1, 2, 0));  // The last place is empty.
}

TEST(ContactSheet, IsSavedAsTheNameSays) {
  TemporaryFolder folder;
  ContactSheet sheet(1);
  ASSERT_TRUE(sheet.Add({32, 16, std::string(size_t{32} * 16 * 3, '\x64')}).ok());
  for (const char* name : {"a.png", "a.JPG"}) {
    ASSERT_TRUE(sheet.Save(folder / name).ok());
    const auto reader = VideoReader::Open(SourceAddress(folder / name));
    ASSERT_TRUE(reader.ok()) << reader.status();
    const auto frame = (*reader)->Next();
    ASSERT_TRUE(frame.ok() && frame->has_value());
    EXPECT_EQ((*frame)->width, 328);
    EXPECT_EQ((*frame)->height, 168);
    PixelScaler scaler;
    const auto image = scaler.Scale(**frame, PixelFormat::kRgb24);
    EXPECT_NEAR(static_cast<uint8_t>(image->pixels[size_t{3} * (84 * 328 + 164)]), 100, 2);
  }
  EXPECT_TRUE(ContactSheet::CheckName("sheet.jpeg").ok());
  EXPECT_FALSE(ContactSheet::CheckName("sheet.mp4").ok());
  EXPECT_FALSE(sheet.Save(folder / "none/a.png").ok());
}

}  // namespace
}  // namespace millrace
