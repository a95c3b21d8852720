// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/jpeg_encoder.h"

#include <cstdio>  // jpeglib.h doesn't include it.
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "jpeglib.h"

namespace millrace {
inline namespace client {

absl::StatusOr<std::string> EncodeJpeg(const Image& image, int quality) {
  // That is the one error that libjpeg could find here, but for a lack of memory, and it ends the
  // program on errors.
  if (image.width > JPEG_MAX_DIMENSION || image.height > JPEG_MAX_DIMENSION) {
    return absl::InvalidArgumentError(absl::StrCat("a JPEG has at most ", JPEG_MAX_DIMENSION,
                                                   " pixels on a side; got ", image.width, "x",
                                                   image.height));
  }
  jpeg_error_mgr errors;
  jpeg_compress_struct encoder;
  encoder.err = jpeg_std_error(&errors);
  jpeg_create_compress(&encoder);
  unsigned char* file = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&encoder, &file, &size);
  encoder.image_width = image.width;
  encoder.image_height = image.height;
  encoder.input_components = 3;
  encoder.in_color_space = JCS_RGB;
  jpeg_set_defaults(&encoder);
  jpeg_set_quality(&encoder, quality, TRUE);
  jpeg_start_compress(&encoder, TRUE);
  const auto* pixels = reinterpret_cast<const JSAMPLE*>(image.pixels.data());
  while (encoder.next_scanline < encoder.image_height) {
    auto* row = const_cast<JSAMPLE*>(pixels + size_t{3} * encoder.next_scanline * image.width);
    jpeg_write_scanlines(&encoder, &row, 1);
  }
  jpeg_finish_compress(&encoder);
  std::string bytes(reinterpret_cast<const char*>(file), size);
  jpeg_destroy_compress(&encoder);
  std::free(file);
  return bytes;
}

}  // namespace client
}  // namespace millrace
