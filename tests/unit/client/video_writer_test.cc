// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/video_writer.h"

#include <vector>

#include "client/video/jpeg_encoder.h"
#include "client/video/pixel_scaler.h"
#include "client/video/video_reader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/temporary_folder.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

Image Grey(int width, int height, int grey) {
  return {width, height, std::string(size_t{3} * width * height, static_cast<char>(grey))};
}

struct Decoded {
  int width, height;
  absl::Duration timestamp;
  int grey;
};

std::vector<Decoded> Decode(const std::string& path) {
  const auto reader = VideoReader::Open(SourceAddress(path));
  EXPECT_TRUE(reader.ok()) << reader.status();
  std::vector<Decoded> frames;
  PixelScaler scaler;
  while (reader.ok()) {
    const auto frame = (*reader)->Next();
    EXPECT_TRUE(frame.ok()) << frame.status();
    if (!frame.ok() || !frame->has_value()) break;
    const auto image = scaler.Scale(**frame, PixelFormat::kRgb24);
    frames.push_back({image->width, image->height, (*frame)->timestamp,
                      static_cast<uint8_t>(image->pixels[image->pixels.size() / 2])});
  }
  return frames;
}

TEST(VideoWriter, EveryFrameIsThereAtItsTime) {
  for (const char* name : {"a.mp4", "a.mkv", "a.avi"}) {
    TemporaryFolder folder;
    auto writer = VideoWriter::Create(folder / name, 65, 48, 25);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (int i = 0; i < 30; ++i) {
      ASSERT_TRUE((*writer)->Write(Grey(65, 48, 8 * i), i * absl::Milliseconds(40)).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
    const std::vector<Decoded> frames = Decode(folder / name);
    ASSERT_EQ(frames.size(), 30u) << name;
    for (int i = 0; i < 30; ++i) {
      EXPECT_EQ(frames[i].width, 64);
      EXPECT_EQ(frames[i].height, 48);
      EXPECT_NEAR(absl::ToDoubleSeconds(frames[i].timestamp), i * 0.04, 0.002) << name;
      EXPECT_NEAR(frames[i].grey, 8 * i, 6) << name;
    }
  }
}

TEST(VideoWriter, GapsStayAndFramesThatComeTogetherFollowEachOther) {
  TemporaryFolder folder;
  auto writer = VideoWriter::Create(folder / "a.mkv", 64, 48, 25);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const int ms : {0, 1000, 1000, 900}) {
    ASSERT_TRUE((*writer)->Write(Grey(32, 24, 50), absl::Milliseconds(ms)).ok());
  }
  writer->reset();  // Finishes.
  const std::vector<Decoded> frames = Decode(folder / "a.mkv");
  ASSERT_EQ(frames.size(), 4u);
  EXPECT_EQ(frames[1].timestamp, absl::Milliseconds(1000));
  EXPECT_EQ(frames[3].timestamp, absl::Milliseconds(1002));
  EXPECT_EQ(frames[0].width, 64);
}

TEST(VideoWriter, SaysWhatCantBeWritten) {
  TemporaryFolder folder;
  for (const char* name : {"a.text", "a.jpg", "a.mp3", "mp4"}) {
    EXPECT_THAT(VideoWriter::CheckName(name).message(), HasSubstr("ends with its format")) << name;
  }
  EXPECT_FALSE(VideoWriter::Create(folder / "none/a.mp4", 64, 48, 25).ok());
}

TEST(EncodeJpeg, QualityDecidesSizeAndLikeness) {
  TemporaryFolder folder;
  Image image = Grey(64, 48, 0);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<char>(i * i >> 6);
  const auto good = EncodeJpeg(image, 95);
  const auto poor = EncodeJpeg(image, 20);
  ASSERT_TRUE(good.ok() && poor.ok());
  EXPECT_GT(good->size(), 2 * poor->size());
  folder.Write("grey.jpg", *EncodeJpeg(Grey(40, 30, 77), 85));
  const std::vector<Decoded> frames = Decode(folder / "grey.jpg");
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].width, 40);
  EXPECT_EQ(frames[0].height, 30);
  EXPECT_NEAR(frames[0].grey, 77, 1);
  EXPECT_THAT(EncodeJpeg(Image{70000, 1}, 85).status().message(), HasSubstr("70000x1"));
}

}  // namespace
}  // namespace millrace
