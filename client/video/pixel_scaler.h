// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "client/video/image.h"
#include "client/video/video_frame.h"

struct SwsContext;

namespace millrace {
inline namespace client {

enum class PixelFormat { kRgb24, kBgr24 };

// Turns decoded frames into pixels. Keeps its tables for the next frame of the same size.
// Thread-compatible.
class PixelScaler {
 public:
  PixelScaler() = default;
  ~PixelScaler();
  PixelScaler(const PixelScaler&) = delete;
  PixelScaler& operator=(const PixelScaler&) = delete;

  // The frame's pixels in a picture of that size, scaled bilinearly; 0 keeps the frame's own.
  absl::StatusOr<Image> Scale(const VideoFrame& frame, PixelFormat format, int width = 0,
                              int height = 0);
  // The same of a picture of red, green and blue.
  absl::StatusOr<Image> Scale(const Image& image, int width, int height);

 private:
  absl::StatusOr<Image> Scale(const AVFrame& from, PixelFormat format, int width, int height);

  SwsContext* context_ = nullptr;
};

}  // namespace client
}  // namespace millrace
