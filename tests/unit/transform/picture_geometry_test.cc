// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/picture_geometry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/fakes/seed.h"

namespace millrace {
namespace {

ImageTransform To(int width, int height, Fit fit, int shorter_side = 0) {
  ImageTransform transform;
  transform.width = width;
  transform.height = height;
  transform.fit = fit;
  transform.shorter_side = shorter_side;
  return transform;
}

TEST(PictureGeometry, IsThatOfOthers) {
  const struct {
    ImageTransform transform;
    int width, height;
    int64_t resized_width, resized_height, offset_x, offset_y;
  } cases[] = {
      {To(224, 100, Fit::kStretch), 640, 480, 224, 100, 0, 0},
      // Ultralytics: LetterBox((640, 640)).
      {To(640, 640, Fit::kLetterbox), 1920, 1080, 640, 360, 0, 140},
      {To(640, 640, Fit::kLetterbox), 1080, 1920, 360, 640, 140, 0},
      {To(640, 640, Fit::kLetterbox), 320, 240, 640, 480, 0, 80},
      {To(640, 640, Fit::kLetterbox), 1000, 667, 640, 427, 0, 106},  // 213 rows of border.
      {To(640, 384, Fit::kLetterbox), 500, 500, 384, 384, 128, 0},
      {To(64, 64, Fit::kLetterbox), 16, 1, 64, 4, 0, 30},
      {To(64, 64, Fit::kLetterbox), 1000, 1, 64, 1, 0, 31},  // Not 0 rows.
      {To(10, 10, Fit::kLetterbox), 4, 1, 10, 2, 0, 4},      // 2.5, to even.
      // torchvision: Resize(224 or 256), CenterCrop(224).
      {To(224, 224, Fit::kCenterCrop), 640, 480, 298, 224, -37, 0},
      {To(224, 224, Fit::kCenterCrop, 256), 640, 480, 341, 256, -58, -16},  // 58.5, to even.
      {To(224, 224, Fit::kCenterCrop, 256), 480, 640, 256, 341, -16, -58},
      {To(224, 224, Fit::kCenterCrop, 225), 100, 100, 225, 225, 0, 0},    // 0.5, to even.
      {To(224, 224, Fit::kCenterCrop, 227), 100, 100, 227, 227, -2, -2},  // 1.5, to even.
      {To(300, 100, Fit::kCenterCrop), 100, 100, 300, 300, 0, -100},
      {To(100, 300, Fit::kCenterCrop), 100, 100, 300, 300, -100, 0},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(testing::Message() << c.width << "x" << c.height << " in " << c.transform.width
                                    << "x" << c.transform.height);
    const PictureGeometry geometry = GeometryOf(c.transform, c.width, c.height);
    EXPECT_EQ(geometry.width, c.width);
    EXPECT_EQ(geometry.height, c.height);
    EXPECT_EQ(geometry.resized_width, c.resized_width);
    EXPECT_EQ(geometry.resized_height, c.resized_height);
    EXPECT_EQ(geometry.offset_x, c.offset_x);
    EXPECT_EQ(geometry.offset_y, c.offset_y);
    EXPECT_EQ(geometry.scale_x, static_cast<double>(c.resized_width) / c.width);
    EXPECT_EQ(geometry.scale_y, static_cast<double>(c.resized_height) / c.height);
  }
}

TEST(PictureGeometry, LetterboxesLieInsideAndCropsCover) {
  std::mt19937_64 random(TestSeed());
  const auto side = [&](int most) {
    return static_cast<int>(std::uniform_int_distribution<>(1, most)(random));
  };
  for (int i = 0; i < 20000; ++i) {
    const int width = side(1 << side(16));
    const int height = side(1 << side(16));
    const ImageTransform box = To(side(2000), side(2000), Fit::kLetterbox);
    SCOPED_TRACE(testing::Message()
                 << width << "x" << height << " in " << box.width << "x" << box.height);
    const PictureGeometry inside = GeometryOf(box, width, height);
    ASSERT_GE(inside.offset_x, 0);
    ASSERT_GE(inside.offset_y, 0);
    ASSERT_LE(inside.offset_x + inside.resized_width, box.width);
    ASSERT_LE(inside.offset_y + inside.resized_height, box.height);
    ASSERT_TRUE(inside.resized_width == box.width || inside.resized_height == box.height);

    ImageTransform crop = box;
    crop.fit = Fit::kCenterCrop;
    if (i % 2 == 0) crop.shorter_side = std::max(crop.width, crop.height) + side(50) - 1;
    const PictureGeometry cover = GeometryOf(crop, width, height);
    ASSERT_LE(cover.offset_x, 0);
    ASSERT_LE(cover.offset_y, 0);
    ASSERT_GE(cover.offset_x + cover.resized_width, crop.width);
    ASSERT_GE(cover.offset_y + cover.resized_height, crop.height);
  }
}

TEST(PictureGeometry, AJpegIsDecodedAsSmallAsItMay) {
  ImageTransform transform = To(640, 640, Fit::kLetterbox);
  EXPECT_EQ(EighthsToDecode(transform, 1920, 1080), 4);
  EXPECT_EQ(EighthsToDecode(transform, 2560, 1440), 2);
  EXPECT_EQ(EighthsToDecode(transform, 2559, 1440), 4);
  EXPECT_EQ(EighthsToDecode(transform, 5120, 100), 1);
  EXPECT_EQ(EighthsToDecode(transform, 100000, 100), 1);
  EXPECT_EQ(EighthsToDecode(transform, 1279, 1000), 8);
  EXPECT_EQ(EighthsToDecode(transform, 100, 100), 8);  // Enlarged anyway.
  transform.interpolation = Interpolation::kArea;
  EXPECT_EQ(EighthsToDecode(transform, 1920, 1080), 8);
  EXPECT_EQ(EighthsToDecode(transform, 3840, 1080), 4);
  transform.interpolation = Interpolation::kNearest;
  EXPECT_EQ(EighthsToDecode(transform, 5120, 100), 8);
  transform.interpolation = Interpolation::kBilinear;
  transform.fit = Fit::kStretch;
  EXPECT_EQ(EighthsToDecode(transform, 5120, 1280), 4);  // Both sides suffice.
  transform.scaled_decoding = false;
  EXPECT_EQ(EighthsToDecode(transform, 5120, 5120), 8);
}

}  // namespace
}  // namespace millrace
