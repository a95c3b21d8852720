// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libavutil/parseutils.h>
#include <libavutil/pixdesc.h>
#include <libavutil/time.h>
#include <libswscale/swscale.h>
}

// What this folder's .cc files need of libav: its objects as C++ owns them. No other includes it.
namespace millrace {
inline namespace client {

template <auto Free>
struct AvDeleter {
  template <typename T>
  void operator()(T* object) const {
    Free(&object);
  }
};
using CodecPtr = std::unique_ptr<AVCodecContext, AvDeleter<avcodec_free_context>>;
using PacketPtr = std::unique_ptr<AVPacket, AvDeleter<av_packet_free>>;
using FramePtr = std::unique_ptr<AVFrame, AvDeleter<av_frame_free>>;

// libav's own words for an error.
inline std::string AvReason(int error) {
  char reason[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(error, reason, sizeof(reason));
  return reason;
}

}  // namespace client
}  // namespace millrace
