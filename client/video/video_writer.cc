// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/video_writer.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/video/av.h"

namespace millrace {
inline namespace client {
namespace {

// The container's clock where frames may come at any time. (AVI has a fixed number a second.)
constexpr AVRational kMilliseconds = {1, 1000};
constexpr int kMostDenominator = 60000;  // MPEG-4 has 16 bits for it.

}  // namespace

class VideoWriter::Muxer {
 public:
  explicit Muxer(std::string path) : path_(std::move(path)) {}

  ~Muxer() {
    Finish().IgnoreError();
    if (format_ != nullptr) avio_closep(&format_->pb);
    avformat_free_context(format_);
    sws_freeContext(scaler_);
  }

  absl::Status Open(int width, int height, double frames_per_second) {
    avformat_alloc_output_context2(&format_, nullptr, nullptr, path_.c_str());
    if (format_ == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", path_, "': a video's name ends with its format: .mp4, .mkv or .avi"));
    }
    const AVRational rate = av_d2q(frames_per_second, kMostDenominator);
    const bool is_avi = absl::string_view(format_->oformat->name) == "avi";
    if (absl::Status status = OpenCodec(width & ~1, height & ~1, rate, is_avi); !status.ok()) {
      return status;
    }
    stream_ = avformat_new_stream(format_, nullptr);
    avcodec_parameters_from_context(stream_->codecpar, codec_.get());
    stream_->time_base = codec_->time_base;
    stream_->avg_frame_rate = rate;
    int error = avio_open(&format_->pb, path_.c_str(), AVIO_FLAG_WRITE);
    if (error >= 0) error = avformat_write_header(format_, nullptr);
    if (error < 0) return Error("can't be written", error);
    open_ = true;
    return absl::OkStatus();
  }

  absl::Status Write(const Image& image, absl::Duration timestamp) {
    const FramePtr frame(av_frame_alloc());
    frame->format = codec_->pix_fmt;
    frame->width = codec_->width;
    frame->height = codec_->height;
    int error = av_frame_get_buffer(frame.get(), 0);
    if (error < 0) return Error("has no memory for a frame", error);
    scaler_ = sws_getCachedContext(scaler_, image.width, image.height, AV_PIX_FMT_RGB24,
                                   frame->width, frame->height, codec_->pix_fmt, SWS_BILINEAR,
                                   nullptr, nullptr, nullptr);
    if (scaler_ == nullptr) return Error("can't scale a frame", AVERROR(EINVAL));
    const uint8_t* const planes[] = {reinterpret_cast<const uint8_t*>(image.pixels.data())};
    const int strides[] = {3 * image.width};
    sws_scale(scaler_, planes, strides, 0, image.height, frame->data, frame->linesize);
    const double ticks = absl::ToDoubleSeconds(timestamp) / av_q2d(codec_->time_base);
    last_pts_ = std::max<int64_t>(last_pts_ + 1, std::llround(ticks));
    frame->pts = last_pts_;
    return Encode(frame.get());
  }

  absl::Status Finish() {
    if (!std::exchange(open_, false)) return absl::OkStatus();
    absl::Status status = Encode(nullptr);
    const int error = av_write_trailer(format_);
    if (status.ok() && error < 0) status = Error("can't be completed", error);
    return status;
  }

 private:
  absl::Status OpenCodec(int width, int height, AVRational rate, bool is_avi) {
    const AVCodec* h264 = is_avi ? nullptr : avcodec_find_encoder_by_name("libx264");
    const AVCodec* codec = h264 != nullptr ? h264 : avcodec_find_encoder(AV_CODEC_ID_MPEG4);
    codec_.reset(avcodec_alloc_context3(codec));
    codec_->width = width;
    codec_->height = height;
    codec_->pix_fmt = AV_PIX_FMT_YUV420P;
    codec_->time_base = is_avi ? av_inv_q(rate) : kMilliseconds;
    codec_->framerate = rate;
    if ((format_->oformat->flags & AVFMT_GLOBALHEADER) != 0) {
      codec_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    }
    AVDictionary* options = nullptr;
    if (h264 != nullptr) {
      av_dict_set(&options, "preset", "veryfast", 0);
    } else {
      codec_->flags |= AV_CODEC_FLAG_QSCALE;
      codec_->global_quality = 3 * FF_QP2LAMBDA;
    }
    const int error = avcodec_open2(codec_.get(), codec, &options);
    av_dict_free(&options);
    if (error < 0) return Error("can't be encoded", error);
    return absl::OkStatus();
  }

  // Writes what the codec makes of the frame; of null, what it still holds.
  absl::Status Encode(const AVFrame* frame) {
    int error = avcodec_send_frame(codec_.get(), frame);
    while (error >= 0) {
      error = avcodec_receive_packet(codec_.get(), packet_.get());
      if (error < 0) break;
      av_packet_rescale_ts(packet_.get(), codec_->time_base, stream_->time_base);
      packet_->stream_index = stream_->index;
      error = av_interleaved_write_frame(format_, packet_.get());
    }
    if (error == AVERROR(EAGAIN) || error == AVERROR_EOF) return absl::OkStatus();
    return Error("can't be written", error);
  }

  absl::Status Error(const char* what, int error) const {
    return absl::InvalidArgumentError(absl::StrCat("'", path_, "' ", what, ": ", AvReason(error)));
  }

  const std::string path_;
  AVFormatContext* format_ = nullptr;
  AVStream* stream_ = nullptr;
  CodecPtr codec_;
  PacketPtr packet_{av_packet_alloc()};
  SwsContext* scaler_ = nullptr;
  int64_t last_pts_ = -1;
  bool open_ = false;
};

VideoWriter::VideoWriter(std::unique_ptr<Muxer> muxer) : muxer_(std::move(muxer)) {}
VideoWriter::~VideoWriter() = default;

absl::StatusOr<std::unique_ptr<VideoWriter>> VideoWriter::Create(const std::string& path, int width,
                                                                 int height,
                                                                 double frames_per_second) {
  av_log_set_level(AV_LOG_QUIET);  // Errors are returned.
  auto muxer = std::make_unique<Muxer>(path);
  if (absl::Status status = muxer->Open(width, height, frames_per_second); !status.ok()) {
    return status;
  }
  return std::unique_ptr<VideoWriter>(new VideoWriter(std::move(muxer)));
}

absl::Status VideoWriter::CheckName(const std::string& path) {
  for (const char* ending : {".mp4", ".mkv", ".avi"}) {
    if (absl::EndsWithIgnoreCase(path, ending)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", path, "': a video's name ends with its format: .mp4, .mkv or .avi"));
}

absl::Status VideoWriter::Write(const Image& image, absl::Duration timestamp) {
  return muxer_->Write(image, timestamp);
}

absl::Status VideoWriter::Finish() { return muxer_->Finish(); }

}  // namespace client
}  // namespace millrace
