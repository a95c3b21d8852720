// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/picture_geometry.h"

#include <algorithm>
#include <cmath>

#include "server/base/check.h"

namespace millrace {
namespace {

// Rounds to the nearest, half to even, like Python's round().
int64_t Round(double value) { return static_cast<int64_t>(std::nearbyint(value)); }

// The size of the whole picture so that its shorter side, or the one that `transform` leaves least
// of, gets the length it must have.
void Cover(const ImageTransform& transform, PictureGeometry& geometry) {
  const int64_t width = geometry.width;
  const int64_t height = geometry.height;
  const int64_t to_width = transform.shorter_side > 0 ? transform.shorter_side : transform.width;
  const int64_t to_height = transform.shorter_side > 0 ? transform.shorter_side : transform.height;
  if (to_width * height >= to_height * width) {
    geometry.resized_width = to_width;
    geometry.resized_height = height * to_width / width;
  } else {
    geometry.resized_height = to_height;
    geometry.resized_width = width * to_height / height;
  }
}

}  // namespace

PictureGeometry GeometryOf(const ImageTransform& transform, int width, int height) {
  MILLRACE_CHECK(width > 0 && height > 0, "A picture has pixels.");
  PictureGeometry geometry;
  geometry.width = width;
  geometry.height = height;
  switch (transform.fit) {
    case Fit::kStretch:
      geometry.resized_width = transform.width;
      geometry.resized_height = transform.height;
      break;
    case Fit::kLetterbox: {
      const double ratio = std::min(static_cast<double>(transform.height) / height,
                                    static_cast<double>(transform.width) / width);
      geometry.resized_width = std::max<int64_t>(1, Round(width * ratio));
      geometry.resized_height = std::max<int64_t>(1, Round(height * ratio));
      geometry.offset_x = (transform.width - geometry.resized_width) / 2;
      geometry.offset_y = (transform.height - geometry.resized_height) / 2;
      break;
    }
    case Fit::kCenterCrop:
      Cover(transform, geometry);
      geometry.offset_x = -Round(static_cast<double>(geometry.resized_width - transform.width) / 2);
      geometry.offset_y =
          -Round(static_cast<double>(geometry.resized_height - transform.height) / 2);
      break;
  }
  geometry.scale_x = static_cast<double>(geometry.resized_width) / width;
  geometry.scale_y = static_cast<double>(geometry.resized_height) / height;
  return geometry;
}

int EighthsToDecode(const ImageTransform& transform, int width, int height) {
  if (!transform.scaled_decoding || transform.interpolation == Interpolation::kNearest) return 8;
  const PictureGeometry geometry = GeometryOf(transform, width, height);
  const int64_t samples = transform.interpolation == Interpolation::kArea ? 3 : 1;
  int eighths = 1;
  while (eighths < 8 && (int64_t{width} * eighths < 8 * samples * geometry.resized_width ||
                         int64_t{height} * eighths < 8 * samples * geometry.resized_height)) {
    eighths *= 2;
  }
  return eighths;
}

}  // namespace millrace
