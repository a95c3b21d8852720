// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "server/transform/image_transform.h"

namespace millrace {

// Where a picture lies in a row. A point of the row is one of the picture at
//   x_picture = (x_row - offset_x) / scale_x
//   y_picture = (y_row - offset_y) / scale_y
// in coordinates that begin with 0 at the upper left corner of the upper left pixel.
struct PictureGeometry {
  int width = 0;  // The picture's, as it is shown: after its EXIF orientation.
  int height = 0;
  int64_t resized_width = 0;  // The whole picture's in pixels of the row, before it is cropped.
  int64_t resized_height = 0;
  double scale_x = 1;  // resized_width / width
  double scale_y = 1;
  int64_t offset_x = 0;  // Letterbox: the border to the left. Crop: minus what is cut off there.
  int64_t offset_y = 0;
};

// Lays out a picture of `width` x `height` in a row. As others do, so that their models see what
// they have been trained with:
//   kLetterbox   Ultralytics' LetterBox: the smaller ratio, rounded sizes; of an odd border the
//                smaller half left and above
//   kCenterCrop  torchvision's Resize(int) and CenterCrop: the longer side rounded down, the crop's
//                begin to the nearest, half to even
// REQUIRES: a valid `transform`; width and height at least 1.
PictureGeometry GeometryOf(const ImageTransform& transform, int width, int height);

// The smallest k of 1, 2, 4 and 8 so that k/8 of the picture is not enlarged where the whole one
// isn't; for kArea, whose filter is as narrow as the ratio, so that a pixel has three samples. 8
// where the transform wants whole pictures. (libjpeg-turbo has vector code for these four: 3/8
// takes as long as 4/8, and 5/8 to 7/8 longer than the whole.)
int EighthsToDecode(const ImageTransform& transform, int width, int height);

}  // namespace millrace
