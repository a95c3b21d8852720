// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/image_transform.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ImageTransform Valid() {
  ImageTransform transform;
  transform.width = 640;
  transform.height = 480;
  return transform;
}

TEST(ImageTransform, RowsHaveTheDimensionsOfTheirLayout) {
  ImageTransform transform = Valid();
  EXPECT_TRUE(CheckImageTransform(transform).ok());
  EXPECT_THAT(RowDims(transform), ElementsAre(3, 480, 640));
  EXPECT_EQ(RowBytes(transform), 3 * 480 * 640 * 4);
  transform.layout = Layout::kNhwc;
  transform.data_type = DataType::kFp16;
  EXPECT_THAT(RowDims(transform), ElementsAre(480, 640, 3));
  EXPECT_EQ(RowBytes(transform), 3 * 480 * 640 * 2);
  transform.color_order = ColorOrder::kGray;
  transform.data_type = DataType::kUint8;
  EXPECT_THAT(RowDims(transform), ElementsAre(480, 640, 1));
  EXPECT_EQ(RowBytes(transform), 480 * 640);
  transform.layout = Layout::kNchw;
  EXPECT_THAT(RowDims(transform), ElementsAre(1, 480, 640));
}

TEST(ImageTransform, RefusesWhatCannotBeAndSaysWhatCameAndWhatWasExpected) {
  using Change = std::function<void(ImageTransform&)>;
  const struct {
    Change change;
    const char* message;
  } cases[] = {
      {[](ImageTransform& t) { t.width = 0; }, "width: 0 came, expected 1 to 16384"},
      {[](ImageTransform& t) { t.height = -3; }, "height: -3 came, expected 1 to 16384"},
      {[](ImageTransform& t) { t.height = 16385; }, "height: 16385 came"},
      {[](ImageTransform& t) { t.fill = 256; }, "fill: 256 came, expected 0 to 255"},
      {[](ImageTransform& t) { t.shorter_side = 700; },
       "shorter_side: 700 came, expected 0 but for CENTER_CROP"},
      {[](ImageTransform& t) {
         t.fit = Fit::kCenterCrop;
         t.shorter_side = 639;
       },
       "shorter_side: 639 came, expected 640 to 16384"},
      {[](ImageTransform& t) { t.data_type = DataType::kFp64; },
       "data_type: FP64 came, expected FP32, FP16, BF16 or UINT8"},
      {[](ImageTransform& t) { t.scale = 0; }, "scale: 0 came, expected a number other than 0"},
      {[](ImageTransform& t) { t.scale = std::numeric_limits<float>::infinity(); },
       "scale: inf came"},
      {[](ImageTransform& t) {
         t.data_type = DataType::kUint8;
         t.scale = 0.5;
       },
       "scale: 0.5 came, expected 1 for UINT8"},
      {[](ImageTransform& t) { t.mean[1] = std::numeric_limits<float>::quiet_NaN(); },
       "mean[1]: nan came, expected a number"},
      {[](ImageTransform& t) { t.std[2] = 0; }, "std[2]: 0 came, expected a number above 0"},
      {[](ImageTransform& t) { t.std[0] = -1; }, "std[0]: -1 came"},
      {[](ImageTransform& t) {
         t.data_type = DataType::kUint8;
         t.mean[0] = 1;
       },
       "mean[0], std[0]: 1, 1 came, expected 0, 1 for UINT8"},
      {[](ImageTransform& t) { t.most_pixels = 0; }, "most_pixels: 0 came, expected 1 to"},
      {[](ImageTransform& t) { t.accepted.clear(); },
       "accepted: nothing came, expected at least one format"},
      {[](ImageTransform& t) { t.accepted = {PictureFormat::kDetect}; },
       "accepted: DETECT came, expected the formats themselves"},
  };
  for (const auto& [change, message] : cases) {
    ImageTransform transform = Valid();
    change(transform);
    const absl::Status status = CheckImageTransform(transform);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(ImageTransform, GrayHasOneMean) {
  ImageTransform transform = Valid();
  transform.color_order = ColorOrder::kGray;
  transform.std = {2, 0, 0};
  EXPECT_TRUE(CheckImageTransform(transform).ok());
}

}  // namespace
}  // namespace millrace
