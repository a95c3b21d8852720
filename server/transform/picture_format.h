// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "server/inference/payload.h"

namespace millrace {

// How the bytes of a picture are to be read.
enum class PictureFormat : uint8_t {
  kDetect,  // JPEG, PNG or WebP, by the first bytes.
  kJpeg,
  kPng,
  kWebp,
  // Raw bytes, whose width and height come with them. Rows have no gaps.
  kRgb,   // 3 bytes per pixel.
  kBgr,   // 3 bytes per pixel.
  kGray,  // 1 byte per pixel.
  kNv12,  // A plane of Y, then rows of U and V in turn, one pair for 2 x 2 pixels.
  kI420,  // Planes of Y, U and V, one U and one V for 2 x 2 pixels.
};

// A picture's format and, of raw bytes, its size.
struct PictureEncoding {
  PictureFormat format = PictureFormat::kDetect;
  int width = 0;   // Pixels. Read for raw formats only.
  int height = 0;  // Pixels. Read for raw formats only.
};

// "JPEG", "PNG", "WEBP", "RGB", "BGR", "GRAY", "NV12", "I420"; "DETECT".
absl::string_view PictureFormatName(PictureFormat format);

// The format of this name; nullopt where there is none.
std::optional<PictureFormat> PictureFormatFromName(absl::string_view name);

// Whether width and height must be told.
bool IsRaw(PictureFormat format);

// Tells the format by the first bytes; kDetect where they are of none.
PictureFormat DetectPictureFormat(const Payload& payload);

}  // namespace millrace
