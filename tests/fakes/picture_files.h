// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace millrace {

// Pictures as files, made by the libraries themselves; and what they make of them alone.

struct JpegOptions {
  int quality = 85;
  bool progressive = false;
  bool gray = false;
  int orientation = 0;                // EXIF's, in an APP1 segment; 0 for none.
  bool scan_per_coefficient = false;  // Of each channel, after one scan of the first coefficients.
};

// A JPEG of width * height * 3 bytes of RGB.
std::vector<uint8_t> EncodeJpeg(const std::vector<uint8_t>& rgb, int width, int height,
                                const JpegOptions& options = {});

// Decodes a whole JPEG to RGB, by libjpeg's plainest loop. REQUIRES: it is no broken one.
std::vector<uint8_t> DecodeJpegPlainly(const std::vector<uint8_t>& file);

// RGB that compresses about as a photograph does: waves of all lengths, and some noise.
std::vector<uint8_t> NaturalPixels(int width, int height);

// The two together.
std::vector<uint8_t> NaturalJpeg(int width, int height);

// A PNG of width * height * 3 bytes of RGB.
std::vector<uint8_t> EncodePng(const std::vector<uint8_t>& rgb, int width, int height,
                               bool interlaced = false);

// A WebP of width * height * 3 bytes of RGB: lossless, or of a quality of 90.
std::vector<uint8_t> EncodeWebp(const std::vector<uint8_t>& rgb, int width, int height,
                                bool lossless);

// An EXIF block ("Exif", two zeros, then the TIFF structure) that tells `orientation`.
std::vector<uint8_t> ExifBlock(uint16_t orientation, bool big_endian = false);

}  // namespace millrace
