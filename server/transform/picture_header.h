// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "server/transform/picture_format.h"

namespace millrace {

// What a picture says of itself before its pixels.
struct PictureHeader {
  PictureFormat format = PictureFormat::kDetect;
  int stored_width = 0;  // Pixels, in the order in which they are stored.
  int stored_height = 0;
  int orientation = 1;  // EXIF's, 1 to 8: how what is stored is to be turned to be shown.
  int width = 0;        // As it is shown.
  int height = 0;
  // The most memory that decoding it takes at a time, with the Picture: an estimate from above.
  size_t scratch_bytes = 0;
};

}  // namespace millrace
