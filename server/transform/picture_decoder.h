// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "server/inference/payload.h"
#include "server/transform/image_transform.h"
#include "server/transform/jpeg_reader.h"
#include "server/transform/picture.h"
#include "server/transform/picture_format.h"
#include "server/transform/picture_header.h"

namespace millrace {

// Reads what stands before a picture's pixels: quick, and of little memory whatever comes.
// INVALID_ARGUMENT, saying what came and what was expected, where the format is unknown or not one
// of `transform.accepted`, the header is corrupt or cut off, the picture has no pixels or more than
// `transform.most_pixels`, or a raw one's bytes don't make up its size. Thread-safe.
absl::StatusOr<PictureHeader> InspectPicture(const Payload& payload,
                                             const PictureEncoding& encoding,
                                             const ImageTransform& transform);

// Decodes pictures, one after the other, and keeps what can be used again: libjpeg's tables.
// (libpng and libwebp can't.) One per thread: thread-compatible.
class PictureDecoder {
 public:
  // Decodes a picture into one that is shown upright, large enough for `transform`. Nothing of the
  // payload is needed afterwards. INVALID_ARGUMENT as from InspectPicture(), which needn't have
  // been called, or where the pixels are corrupt or cut off, as far as that can be told.
  absl::StatusOr<Picture> Decode(const Payload& payload, const PictureEncoding& encoding,
                                 const ImageTransform& transform);

 private:
  JpegReader jpeg_;
};

}  // namespace millrace
