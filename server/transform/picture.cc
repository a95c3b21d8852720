// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/picture.h"

#include "server/base/check.h"

namespace millrace {

Picture::Picture(int width, int height) : Picture(width, height, width, height, 1) {}

Picture::Picture(int width, int height, int original_width, int original_height, double scale)
    : width_(width),
      height_(height),
      original_width_(original_width),
      original_height_(original_height),
      scale_(scale) {
  MILLRACE_CHECK(width > 0 && height > 0, "A picture has pixels.");
  bytes_ = std::make_unique_for_overwrite<uint8_t[]>(size_bytes());
}

}  // namespace millrace
