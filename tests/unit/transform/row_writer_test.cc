// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/row_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "server/transform/picture_geometry.h"
#include "tests/fakes/seed.h"

namespace millrace {
namespace {

Picture Noise(int width, int height, std::mt19937_64& random, int original_width = 0,
              int original_height = 0, double scale = 1) {
  if (original_width == 0) original_width = width;
  if (original_height == 0) original_height = height;
  Picture picture(width, height, original_width, original_height, scale);
  for (size_t i = 0; i < picture.size_bytes(); ++i) {
    picture.row(0)[i] = static_cast<uint8_t>(random());
  }
  return picture;
}

// The weight that a pixel at `middle`, in samples, gives to each of them.
std::vector<double> Weights(Interpolation interpolation, double middle, double step, int samples) {
  std::vector<double> weights(static_cast<size_t>(samples));
  const double unit = std::max(1.0, step);
  double sum = 0;
  for (int i = 0; i < samples; ++i) {
    const double distance = (i - middle + 0.5) / unit;
    double weight = std::max(0.0, 1 - std::abs(distance));
    if (interpolation == Interpolation::kArea) {
      // Where its edge lies on a sample's middle, rounding decides: that isn't compared.
      const bool undecided = std::abs(std::abs(distance) - 0.5) < 1e-9;
      weight = undecided ? std::nan("") : std::abs(distance) < 0.5;
    }
    weights[static_cast<size_t>(i)] = weight;
    sum += weight;
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

// What a row's pixel is by the definition: all of the picture's samples, weighed, in doubles.
double Reference(const Picture& picture, const ImageTransform& transform, int x, int y, int c) {
  const PictureGeometry geometry =
      GeometryOf(transform, picture.original_width(), picture.original_height());
  const auto in_x = static_cast<double>(x - geometry.offset_x);
  const auto in_y = static_cast<double>(y - geometry.offset_y);
  if (in_x < 0 || in_y < 0 || in_x >= static_cast<double>(geometry.resized_width) ||
      in_y >= static_cast<double>(geometry.resized_height)) {
    return transform.fill;
  }
  const double step_x =
      geometry.width * picture.scale() / static_cast<double>(geometry.resized_width);
  const double step_y =
      geometry.height * picture.scale() / static_cast<double>(geometry.resized_height);
  const auto across =
      Weights(transform.interpolation, (in_x + 0.5) * step_x, step_x, picture.width());
  const auto down =
      Weights(transform.interpolation, (in_y + 0.5) * step_y, step_y, picture.height());
  double sum = 0;
  for (int row = 0; row < picture.height(); ++row) {
    const double weight = down[static_cast<size_t>(row)];
    for (int column = 0; column < picture.width(); ++column) {
      sum += weight * across[static_cast<size_t>(column)] * picture.row(row)[3 * column + c];
    }
  }
  return sum;
}

double ReferenceChannel(const Picture& picture, const ImageTransform& transform, int x, int y,
                        int channel) {
  if (transform.color_order == ColorOrder::kGray) {
    return (19595 * Reference(picture, transform, x, y, 0) +
            38470 * Reference(picture, transform, x, y, 1) +
            7471 * Reference(picture, transform, x, y, 2)) /
           65536;
  }
  const int c = transform.color_order == ColorOrder::kBgr ? 2 - channel : channel;
  return Reference(picture, transform, x, y, c);
}

std::vector<float> WriteFloats(const Picture& picture, const ImageTransform& transform) {
  std::vector<float> row(RowBytes(transform) / sizeof(float));
  WriteRow(picture, transform, {reinterpret_cast<std::byte*>(row.data()), RowBytes(transform)});
  return row;
}

size_t IndexOf(const ImageTransform& transform, int x, int y, int c) {
  const int channels = Channels(transform);
  return static_cast<size_t>(transform.layout == Layout::kNchw
                                 ? (c * transform.height + y) * transform.width + x
                                 : (y * transform.width + x) * channels + c);
}

TEST(RowWriter, EveryPixelIsWhatTheFilterSays) {
  std::mt19937_64 random(TestSeed());
  const auto any = [&](int least, int most) {
    return std::uniform_int_distribution<>(least, most)(random);
  };
  int compared = 0;
  for (int round = 0; round < 150; ++round) {
    ImageTransform transform;
    transform.width = any(1, 40);
    transform.height = any(1, 40);
    transform.fit = static_cast<Fit>(any(0, 2));
    if (transform.fit == Fit::kCenterCrop && any(0, 1) == 1) {
      transform.shorter_side = std::max(transform.width, transform.height) + any(0, 9);
    }
    transform.interpolation = static_cast<Interpolation>(any(0, 1));  // Nearest: below.
    transform.color_order = static_cast<ColorOrder>(any(0, 2));
    transform.layout = static_cast<Layout>(any(0, 1));
    transform.scale = 1 / 255.0F;
    transform.mean = {0.4F, 0.5F, 0.6F};
    transform.std = {0.2F, 0.3F, 0.1F};
    ASSERT_TRUE(CheckImageTransform(transform).ok());
    const int width = any(1, 50);
    const int height = any(1, 50);
    const double scale = 1.0 / (1 << any(0, 3));
    const Picture picture =
        Noise(static_cast<int>(std::ceil(width * scale)),
              static_cast<int>(std::ceil(height * scale)), random, width, height, scale);
    SCOPED_TRACE(testing::Message()
                 << width << "x" << height << " * " << scale << " to " << transform.width << "x"
                 << transform.height << ", fit " << static_cast<int>(transform.fit) << " "
                 << transform.shorter_side << ", interpolation "
                 << static_cast<int>(transform.interpolation));
    const std::vector<float> row = WriteFloats(picture, transform);
    for (int y = 0; y < transform.height; ++y) {
      for (int x = 0; x < transform.width; ++x) {
        for (int c = 0; c < Channels(transform); ++c) {
          const auto i = static_cast<size_t>(c);
          const double pixel =
              (row[IndexOf(transform, x, y, c)] * transform.std[i] + transform.mean[i]) * 255.0;
          const double expected = ReferenceChannel(picture, transform, x, y, c);
          if (std::isnan(expected)) continue;
          ASSERT_NEAR(pixel, expected, 1e-3) << x << " " << y << " " << c;
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(compared, 10'000);
}

// Where the middle lies between two samples rounding decides, so sizes are odd multiples.
TEST(RowWriter, NearestTakesThePixelInTheMiddle) {
  std::mt19937_64 random(TestSeed());
  for (const int ratio : {1, 3, 7}) {
    const Picture picture = Noise(5 * ratio, 4 * ratio, random);
    ImageTransform transform;
    transform.width = 5;
    transform.height = 4;
    transform.interpolation = Interpolation::kNearest;
    const std::vector<float> row = WriteFloats(picture, transform);
    for (int y = 0; y < 4; ++y) {
      for (int x = 0; x < 5; ++x) {
        const uint8_t* const pixel =
            picture.row(y * ratio + ratio / 2) + 3 * (x * ratio + ratio / 2);
        for (int c = 0; c < 3; ++c) EXPECT_EQ(row[IndexOf(transform, x, y, c)], pixel[c]);
      }
    }
  }
}

TEST(RowWriter, APictureOfTheRowsSizeIsTakenAsItIs) {
  std::mt19937_64 random(TestSeed());
  const Picture picture = Noise(37, 21, random);
  ImageTransform transform;
  transform.width = 37;
  transform.height = 21;
  transform.layout = Layout::kNhwc;
  transform.data_type = DataType::kUint8;
  for (const Fit fit : {Fit::kStretch, Fit::kLetterbox, Fit::kCenterCrop}) {
    transform.fit = fit;
    std::vector<std::byte> row(RowBytes(transform));
    WriteRow(picture, transform, absl::MakeSpan(row));
    EXPECT_EQ(std::memcmp(row.data(), picture.row(0), row.size()), 0);
  }
}

TEST(RowWriter, PictureMayBeWrittenAgainToRowsOfAnyAlignment) {
  std::mt19937_64 random(TestSeed());
  const Picture picture = Noise(50, 33, random);
  for (const DataType type :
       {DataType::kFp32, DataType::kFp16, DataType::kBf16, DataType::kUint8}) {
    for (const Layout layout : {Layout::kNchw, Layout::kNhwc}) {
      ImageTransform transform;
      transform.width = 23;
      transform.height = 19;
      transform.fit = Fit::kLetterbox;
      transform.layout = layout;
      transform.data_type = type;
      const size_t bytes = RowBytes(transform);
      std::vector<std::byte> first(bytes);
      WriteRow(picture, transform, absl::MakeSpan(first));
      for (size_t offset = 1; offset < 8; ++offset) {
        std::vector<std::byte> room(bytes + 9, std::byte{0x5A});
        WriteRow(picture, transform, absl::MakeSpan(room).subspan(offset, bytes));
        EXPECT_EQ(std::memcmp(room.data() + offset, first.data(), bytes), 0);
        EXPECT_EQ(room[offset - 1], std::byte{0x5A});
        EXPECT_EQ(room[offset + bytes], std::byte{0x5A});
      }
    }
  }
}

TEST(RowWriter, BorderHasTheFillNormalised) {
  Picture picture(4, 2);
  std::fill_n(picture.row(0), picture.size_bytes(), uint8_t{200});
  ImageTransform transform;
  transform.width = 8;
  transform.height = 10;
  transform.fit = Fit::kLetterbox;
  transform.fill = 100;
  transform.scale = 0.5;
  transform.mean = {10, 20, 30};
  transform.std = {2, 4, 5};
  const std::vector<float> row = WriteFloats(picture, transform);
  const float border[] = {20, 7.5, 4};
  const float inside[] = {45, 20, 14};
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < 10; ++y) {
      for (int x = 0; x < 8; ++x) {
        EXPECT_FLOAT_EQ(row[IndexOf(transform, x, y, c)], y >= 3 && y < 7 ? inside[c] : border[c]);
      }
    }
  }
}

TEST(RowWriter, ExtremeShapesAreWritten) {
  std::mt19937_64 random(TestSeed());
  for (const auto& [width, height] : {std::pair{1, 30000}, {30000, 1}, {1, 1}}) {
    const Picture picture = Noise(width, height, random);
    for (const Fit fit : {Fit::kStretch, Fit::kLetterbox, Fit::kCenterCrop}) {
      for (const auto interpolation :
           {Interpolation::kBilinear, Interpolation::kArea, Interpolation::kNearest}) {
        ImageTransform transform;
        transform.width = 9;
        transform.height = 7;
        transform.fit = fit;
        transform.interpolation = interpolation;
        for (const float value : WriteFloats(picture, transform)) {
          ASSERT_GE(value, -1e-3);
          ASSERT_LE(value, 255.001);
        }
      }
    }
  }
}

TEST(RowWriter, EqualPixelsStayEqual) {
  Picture picture(301, 203);
  std::fill_n(picture.row(0), picture.size_bytes(), uint8_t{255});
  ImageTransform transform;
  transform.width = 97;
  transform.height = 411;
  transform.data_type = DataType::kUint8;
  for (const auto interpolation :
       {Interpolation::kBilinear, Interpolation::kArea, Interpolation::kNearest}) {
    transform.interpolation = interpolation;
    std::vector<std::byte> row(RowBytes(transform));
    WriteRow(picture, transform, absl::MakeSpan(row));
    EXPECT_TRUE(
        std::all_of(row.begin(), row.end(), [](std::byte b) { return b == std::byte{255}; }));
  }
}

TEST(RowWriterDeathTest, RowOfAnotherSizeIsAProgrammersError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Picture picture(2, 2);
  ImageTransform transform;
  transform.width = transform.height = 2;
  std::vector<std::byte> row(RowBytes(transform) - 1);
  EXPECT_DEATH(WriteRow(picture, transform, absl::MakeSpan(row)), "transform's size");
}

}  // namespace
}  // namespace millrace
