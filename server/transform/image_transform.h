// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/inference/data_type.h"
#include "server/inference/shape.h"
#include "server/transform/picture_format.h"

namespace millrace {

// How a picture comes to the size of a row.
enum class Fit : uint8_t {
  kStretch,     // To exactly this size, whatever that does to its shape.
  kLetterbox,   // As large as fits in, its shape kept, in the middle of a filled border.
  kCenterCrop,  // As small as covers it, its shape kept; what is too much is cut off at both ends.
};

// How a pixel is made of the picture's. The filters are Pillow's, which torchvision's are, too
// (antialias=True).
enum class Interpolation : uint8_t {
  kBilinear,  // A triangle, as wide as two pixels of the smaller of both grids.
  kArea,      // The mean of what the pixel covers.
  kNearest,   // The picture's pixel in the middle.
};

enum class ColorOrder : uint8_t {
  kRgb,
  kBgr,
  kGray,  // One channel, ITU-R 601: 0.299 R + 0.587 G + 0.114 B.
};

enum class Layout : uint8_t { kNchw, kNhwc };

// What is made of a picture for one row of a model's input.
struct ImageTransform {
  // The row's size, in pixels: 1 to kMostSide.
  int width = 0;
  int height = 0;

  Fit fit = Fit::kStretch;
  // kCenterCrop only: the length of the picture's shorter side before it is cropped, as in
  // torchvision's Resize(256) before CenterCrop(224); 0 for as short as covers the row.
  int shorter_side = 0;
  // kLetterbox only: the border's value in each channel, before it is normalised.
  int fill = 114;
  Interpolation interpolation = Interpolation::kBilinear;

  ColorOrder color_order = ColorOrder::kRgb;
  Layout layout = Layout::kNchw;
  // FP32, FP16 or BF16: (pixel * scale - mean) / std, by channel in the order of color_order; not
  // rounded before that. UINT8: the pixel, rounded; takes no scale, mean and std.
  DataType data_type = DataType::kFp32;
  float scale = 1;
  std::array<float, 3> mean = {0, 0, 0};
  std::array<float, 3> std = {1, 1, 1};

  // What a request may send.
  std::vector<PictureFormat> accepted = {PictureFormat::kJpeg, PictureFormat::kPng,
                                         PictureFormat::kWebp};
  // A picture with more is refused before it is decoded.
  int64_t most_pixels = 40'000'000;
  // Decodes a JPEG at the smallest of 1/8, 1/4, 1/2 and the whole of its size that needs no
  // enlarging that the whole one wouldn't. Several times faster for large pictures, and slightly
  // other pixels. Never for kNearest, which is about single pixels.
  bool scaled_decoding = true;
};

inline constexpr int kMostSide = 16384;
inline constexpr int64_t kMostPixels = int64_t{1} << 29;

// Checks the settings: INVALID_ARGUMENT names the field, what came and what was expected.
absl::Status CheckImageTransform(const ImageTransform& transform);

// 1 or 3.
int Channels(const ImageTransform& transform);

// The dimensions of a row, without the batch: [3, height, width] or [height, width, 3].
Shape RowDims(const ImageTransform& transform);

// The bytes of a row.
size_t RowBytes(const ImageTransform& transform);

}  // namespace millrace
