// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/video_reader.h"

#include <memory>
#include <utility>
#include <vector>

#include "client/video/pixel_scaler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/temporary_folder.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<VideoReader>> Open(const std::string& source,
                                                  VideoReaderOptions options = {}) {
  return VideoReader::Open(SourceAddress(source), std::move(options));
}

// The first pixel of every frame's first channel.
std::vector<int> Reds(const std::string& source, PixelFormat format = PixelFormat::kRgb24) {
  const auto reader = Open(source);
  PixelScaler scaler;
  EXPECT_TRUE(reader.ok()) << reader.status();
  std::vector<int> reds;
  for (;;) {
    const auto frame = (*reader)->Next();
    EXPECT_TRUE(frame.ok()) << frame.status();
    if (!frame.ok() || !frame->has_value()) return reds;
    reds.push_back(static_cast<uint8_t>(scaler.Scale(**frame, format)->pixels[0]));
  }
}

void WritePictures(const TemporaryFolder& folder) {
  folder.Write("a08.ppm", Picture(4, 2, 80, 0, 0));
  folder.Write("a09.ppm", Picture(6, 4, 90, 0, 0));
  folder.Write("a10.ppm", Picture(4, 2, 100, 0, 0));
}

TEST(VideoReader, ReadsFoldersPatternsAndNumberedSequencesInOrder) {
  TemporaryFolder folder;
  WritePictures(folder);
  EXPECT_THAT(Reds(folder / ""), ElementsAre(80, 90, 100));
  EXPECT_THAT(Reds(folder / "a0*.ppm"), ElementsAre(80, 90));
  EXPECT_THAT(Reds(folder / "a%02d.ppm"), ElementsAre(80, 90, 100));
  EXPECT_THAT(Reds(folder / "a09.ppm"), ElementsAre(90));
}

TEST(VideoReader, FrameKeepsItsIndexAndTimeAfterASkippedStart) {
  TemporaryFolder folder;
  WritePictures(folder);
  const auto reader = Open(folder / "*.ppm", {.start_frame = 2});
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->frame_count(), 3);
  const auto frame = (*reader)->Next();
  ASSERT_TRUE(frame.ok() && frame->has_value());
  EXPECT_EQ((*frame)->index, 2);
  EXPECT_EQ((*frame)->timestamp, absl::Milliseconds(80));
  EXPECT_FALSE((*(*reader)->Next()).has_value());
}

TEST(VideoReader, ScalesToTheSizeAskedFor) {
  TemporaryFolder folder;
  folder.Write("a.ppm", Picture(64, 48, 10, 200, 30));
  const auto reader = Open(folder / "a.ppm");
  ASSERT_TRUE(reader.ok()) << reader.status();
  const auto frame = (*reader)->Next();
  ASSERT_TRUE(frame.ok() && frame->has_value());
  EXPECT_EQ((*frame)->width, 64);
  EXPECT_EQ((*frame)->height, 48);
  PixelScaler scaler;
  const auto image = scaler.Scale(**frame, PixelFormat::kRgb24, 33, 17);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->width, 33);
  EXPECT_EQ(image->height, 17);
  ASSERT_EQ(image->pixels.size(), 33u * 17u * 3u);
  EXPECT_EQ(image->pixels.substr(0, 3), image->pixels.substr(33 * 17 * 3 - 3));
  EXPECT_NEAR(static_cast<uint8_t>(image->pixels[1]), 200, 2);
}

TEST(VideoReader, ColoursComeInTheOrderAskedFor) {
  TemporaryFolder folder;
  folder.Write("a.ppm", Picture(2, 2, 1, 2, 3));
  EXPECT_THAT(Reds(folder / "a.ppm"), ElementsAre(1));
  EXPECT_THAT(Reds(folder / "a.ppm", PixelFormat::kBgr24), ElementsAre(3));
}

TEST(VideoReader, OpenSaysWhatIsWrong) {
  TemporaryFolder folder;
  EXPECT_EQ(Open(folder / "none.avi").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Open(folder / "").status().code(), absl::StatusCode::kNotFound);
  folder.Write("noise.avi", "this is no video");
  const absl::Status status = Open(folder / "noise.avi").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("noise.avi': can't open: Invalid data"));
}

// This kernel may have no camera: that libav reads one is seen by how it fails.
TEST(VideoReader, CamerasAreOpenedByTheirDriver) {
  const absl::Status status = Open("/dev/video98765").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "'/dev/video98765': can't open: No such file or directory");
}

TEST(VideoReader, SaysThatAUrlCantBeReachedWithoutItsPassword) {
  const absl::Status status = Open("rtsp://user:secret@127.0.0.1:1/live").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("'rtsp://127.0.0.1:1/live': can't open: Connection ref"));
}

}  // namespace
}  // namespace millrace
