// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/fakes/picture_files.h"

#include <png.h>
#include <webp/encode.h>

// jpeglib.h needs what stands before it.
// clang-format off
#include <cstdio>
#include <jpeglib.h>
// clang-format on

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <random>

#include "server/base/check.h"

namespace millrace {

std::vector<uint8_t> ExifBlock(uint16_t orientation, bool big_endian) {
  std::vector<uint8_t> block = {'E', 'x', 'i', 'f', 0, 0};
  const auto put = [&](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) {
      const int shift = 8 * (big_endian ? bytes - 1 - i : i);
      block.push_back(static_cast<uint8_t>(value >> shift));
    }
  };
  put(big_endian ? 0x4D4D : 0x4949, 2);
  put(42, 2);
  put(8, 4);       // Where the first directory begins,
  put(1, 2);       // which has one entry:
  put(0x0112, 2);  // Orientation,
  put(3, 2);       // a SHORT,
  put(1, 4);       // one of it.
  put(orientation, 2);
  put(0, 2);
  put(0, 4);  // No further directory.
  return block;
}

std::vector<uint8_t> EncodeJpeg(const std::vector<uint8_t>& rgb, int width, int height,
                                const JpegOptions& options) {
  jpeg_compress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&jpeg, &bytes, &size);
  jpeg.image_width = static_cast<JDIMENSION>(width);
  jpeg.image_height = static_cast<JDIMENSION>(height);
  jpeg.input_components = 3;
  jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  if (options.gray) jpeg_set_colorspace(&jpeg, JCS_GRAYSCALE);
  jpeg_set_quality(&jpeg, options.quality, TRUE);
  if (options.progressive) jpeg_simple_progression(&jpeg);
  std::vector<jpeg_scan_info> scans;
  if (options.scan_per_coefficient) {
    scans.push_back({jpeg.num_components, {0, 1, 2}, 0, 0, 0, 0});
    for (int c = 0; c < jpeg.num_components; ++c) {
      for (int i = 1; i < 64; ++i) scans.push_back({1, {c}, i, i, 0, 0});
    }
    jpeg.scan_info = scans.data();
    jpeg.num_scans = static_cast<int>(scans.size());
  }
  jpeg_start_compress(&jpeg, TRUE);
  if (options.orientation != 0) {
    const auto block = ExifBlock(static_cast<uint16_t>(options.orientation));
    jpeg_write_marker(&jpeg, JPEG_APP0 + 1, block.data(), static_cast<unsigned int>(block.size()));
  }
  while (jpeg.next_scanline < jpeg.image_height) {
    auto* row =
        const_cast<uint8_t*>(rgb.data()) + size_t{3} * jpeg.next_scanline * jpeg.image_width;
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  std::vector<uint8_t> file(bytes, bytes + size);
  std::free(bytes);
  return file;
}

std::vector<uint8_t> DecodeJpegPlainly(const std::vector<uint8_t>& file) {
  jpeg_decompress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, file.data(), file.size());
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  std::vector<uint8_t> rgb(size_t{3} * jpeg.output_width * jpeg.output_height);
  while (jpeg.output_scanline < jpeg.output_height) {
    auto* row = rgb.data() + size_t{3} * jpeg.output_scanline * jpeg.output_width;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
  return rgb;
}

std::vector<uint8_t> NaturalPixels(int width, int height) {
  std::mt19937 random(1);
  constexpr int kWaves = 24;
  struct Wave {
    double x, y, phase, amplitude;
  };
  std::vector<Wave> waves(kWaves);
  std::uniform_real_distribution<double> unit(0, 1);
  for (int i = 0; i < kWaves; ++i) {
    // Amplitudes fall with the frequency, as in nature.
    const double frequency = std::pow(1.25, i) * 2 * std::numbers::pi / 640;
    const double angle = unit(random) * 2 * std::numbers::pi;
    waves[static_cast<size_t>(i)] = {frequency * std::cos(angle), frequency * std::sin(angle),
                                     unit(random) * 6, 40 / std::pow(1.12, i)};
  }
  std::normal_distribution<double> noise(0, 3);
  std::vector<uint8_t> rgb;
  rgb.reserve(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      double light[3] = {128, 128, 128};
      for (size_t i = 0; i < waves.size(); ++i) {
        const Wave& wave = waves[i];
        const double value = wave.amplitude * std::sin(wave.x * x + wave.y * y + wave.phase);
        for (size_t c = 0; c < 3; ++c) light[c] += i % 4 == c ? 1.6 * value : value;
      }
      const double grain = noise(random);
      for (const double value : light) {
        rgb.push_back(static_cast<uint8_t>(std::clamp(value + grain, 0.0, 255.0)));
      }
    }
  }
  return rgb;
}

std::vector<uint8_t> NaturalJpeg(int width, int height) {
  return EncodeJpeg(NaturalPixels(width, height), width, height);
}

std::vector<uint8_t> EncodePng(const std::vector<uint8_t>& rgb, int width, int height,
                               bool interlaced) {
  std::vector<uint8_t> file;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &file,
      [](png_structp writing, png_bytep bytes, size_t size) {
        auto& into = *static_cast<std::vector<uint8_t>*>(png_get_io_ptr(writing));
        into.insert(into.end(), bytes, bytes + size);
      },
      nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), 8,
               PNG_COLOR_TYPE_RGB, interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  std::vector<png_bytep> rows;
  rows.reserve(static_cast<size_t>(height));
  for (int y = 0; y < height; ++y) {
    rows.push_back(const_cast<uint8_t*>(rgb.data()) +
                   static_cast<size_t>(y) * static_cast<size_t>(width) * 3);
  }
  png_set_rows(png, info, rows.data());
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, nullptr);
  png_destroy_write_struct(&png, &info);
  return file;
}

std::vector<uint8_t> EncodeWebp(const std::vector<uint8_t>& rgb, int width, int height,
                                bool lossless) {
  uint8_t* bytes = nullptr;
  const size_t size = lossless ? WebPEncodeLosslessRGB(rgb.data(), width, height, 3 * width, &bytes)
                               : WebPEncodeRGB(rgb.data(), width, height, 3 * width, 90, &bytes);
  MILLRACE_CHECK(size > 0, "libwebp encodes what it is given.");
  std::vector<uint8_t> file(bytes, bytes + size);
  WebPFree(bytes);
  return file;
}

}  // namespace millrace
