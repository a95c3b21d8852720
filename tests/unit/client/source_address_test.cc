// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/source_address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Pair;
using Kind = SourceAddress::Kind;

TEST(SourceAddress, KindFollowsFromTheName) {
  const std::pair<const char*, Kind> all[] = {{"people.avi", Kind::kFiles},
                                              {"frames/*.jpg", Kind::kFiles},
                                              {"rtsp://camera/live", Kind::kUrl},
                                              {"RTSPS://camera", Kind::kUrl},
                                              {"http://camera/a.mjpg", Kind::kUrl},
                                              {"https://camera/", Kind::kUrl},
                                              {"/dev/video0", Kind::kDevice},
                                              {"/dev/v4l/by-id/usb", Kind::kDevice},
                                              {"-", Kind::kStdin},
                                              {"rtsp", Kind::kFiles}};
  for (const auto& [name, kind] : all) {
    EXPECT_EQ(SourceAddress(name).kind, kind) << name;
    EXPECT_EQ(SourceAddress(name).is_live(), kind == Kind::kUrl || kind == Kind::kDevice) << name;
  }
}

TEST(SourceAddress, LabelHasNoPassword) {
  EXPECT_EQ(SourceAddress("rtsp://me:p@ss@camera:554/a@b").label, "rtsp://camera:554/a@b");
  EXPECT_EQ(SourceAddress("http://camera/a?to=me@home").label, "http://camera/a?to=me@home");
}

TEST(InputFor, CameraIsAskedForWhatWasSaid) {
  const auto input =
      InputFor(SourceAddress("/dev/video0"),
               {.width = 640, .height = 480, .pixels = "mjpeg", .frames_per_second = 30});
  ASSERT_TRUE(input.ok()) << input.status();
  EXPECT_EQ(input->url, "/dev/video0");
  EXPECT_EQ(input->format, "v4l2");
  EXPECT_THAT(input->options, ElementsAre(Pair("framerate", "30"), Pair("input_format", "mjpeg"),
                                          Pair("video_size", "640x480")));
  EXPECT_TRUE(InputFor(SourceAddress("/dev/video0"), {})->options.empty());
}

TEST(InputFor, RtspGoesOverTcpUnlessToldOtherwise) {
  EXPECT_THAT(InputFor(SourceAddress("rtsp://camera"), {})->options,
              IsSupersetOf({Pair("rtsp_flags", "prefer_tcp")}));
  EXPECT_THAT(InputFor(SourceAddress("rtsp://camera"), {.rtsp_transport = "udp"})->options,
              IsSupersetOf({Pair("rtsp_transport", "udp")}));
  EXPECT_TRUE(InputFor(SourceAddress("http://camera"), {})->options.empty());
}

TEST(InputFor, RawFramesOnStdinNeedSizeAndFormat) {
  const auto raw = InputFor(SourceAddress("-"), {.width = 4, .height = 2, .pixels = "rgb24"});
  ASSERT_TRUE(raw.ok()) << raw.status();
  EXPECT_EQ(raw->format, "rawvideo");
  EXPECT_THAT(InputFor(SourceAddress("-"), {.pixels = "rgb24"}).status().message(),
              HasSubstr("the size is missing"));
  EXPECT_THAT(InputFor(SourceAddress("-"), {.width = 4, .height = 2}).status().message(),
              HasSubstr("the format is missing"));
  EXPECT_EQ(InputFor(SourceAddress("-"), {})->format, "");  // A container, then.
}

}  // namespace
}  // namespace millrace
