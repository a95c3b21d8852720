// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace millrace {

// A decoded picture: rows of 3 bytes per pixel, red, green, blue, without gaps, from the top left.
// It is as the picture is to be shown, or smaller: a JPEG may be decoded at a fraction of its size,
// and the picture still knows of what. Thread-compatible.
class Picture {
 public:
  static constexpr int kChannels = 3;

  // Allocates `width` x `height` pixels and leaves them as they are. REQUIRES: both at least 1.
  Picture(int width, int height);

  // As above, of `scale` times the size of a picture of `original_width` x `original_height`:
  // pixel (x, y) covers its square from (x, y) / scale on. The last column and row may reach beyond
  // its edge.
  Picture(int width, int height, int original_width, int original_height, double scale);

  Picture(Picture&&) = default;
  Picture& operator=(Picture&&) = default;

  int width() const { return width_; }
  int height() const { return height_; }
  int original_width() const { return original_width_; }
  int original_height() const { return original_height_; }
  double scale() const { return scale_; }

  size_t size_bytes() const { return stride() * static_cast<size_t>(height_); }
  size_t stride() const { return static_cast<size_t>(width_) * kChannels; }

  // The first byte of row `y`; rows follow one another.
  uint8_t* row(int y) { return bytes_.get() + stride() * static_cast<size_t>(y); }
  const uint8_t* row(int y) const { return bytes_.get() + stride() * static_cast<size_t>(y); }

 private:
  int width_;
  int height_;
  int original_width_;
  int original_height_;
  double scale_;
  std::unique_ptr<uint8_t[]> bytes_;
};

}  // namespace millrace
