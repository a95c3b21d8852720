// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/pixel_scaler.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/video/av.h"

namespace millrace {
inline namespace client {

PixelScaler::~PixelScaler() { sws_freeContext(context_); }

absl::StatusOr<Image> PixelScaler::Scale(const VideoFrame& frame, PixelFormat format, int width,
                                         int height) {
  return Scale(*frame.picture, format, width, height);
}

absl::StatusOr<Image> PixelScaler::Scale(const Image& image, int width, int height) {
  const FramePtr frame(av_frame_alloc());
  frame->format = AV_PIX_FMT_RGB24;
  frame->width = image.width;
  frame->height = image.height;
  frame->data[0] = reinterpret_cast<uint8_t*>(const_cast<char*>(image.pixels.data()));  // Is read.
  frame->linesize[0] = 3 * image.width;
  return Scale(*frame, PixelFormat::kRgb24, width, height);
}

absl::StatusOr<Image> PixelScaler::Scale(const AVFrame& from, PixelFormat format, int width,
                                         int height) {
  Image to{width > 0 ? width : from.width, height > 0 ? height : from.height};
  context_ = sws_getCachedContext(
      context_, from.width, from.height, static_cast<AVPixelFormat>(from.format), to.width,
      to.height, format == PixelFormat::kRgb24 ? AV_PIX_FMT_RGB24 : AV_PIX_FMT_BGR24, SWS_BILINEAR,
      nullptr, nullptr, nullptr);
  if (context_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("can't scale a picture of ", from.width, "x",
                                                   from.height, " to ", to.width, "x", to.height));
  }
  const size_t size = size_t{3} * to.width * to.height;
  to.pixels.resize(size + AV_INPUT_BUFFER_PADDING_SIZE);  // swscale may write past the last row.
  uint8_t* const planes[] = {reinterpret_cast<uint8_t*>(to.pixels.data())};
  const int strides[] = {3 * to.width};
  sws_scale(context_, from.data, from.linesize, 0, from.height, planes, strides);
  to.pixels.resize(size);
  return to;
}

}  // namespace client
}  // namespace millrace
