// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/media_decoder.h"

#include <dlfcn.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/video/av.h"

namespace millrace {
inline namespace client {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr double kDefaultFramesPerSecond = 25;
constexpr int kStdinBuffer = 1 << 16;
constexpr int kPollMilliseconds = 100;
constexpr int kAgainMicroseconds = 5000;

// Cameras are read by libavdevice, which brings dozens of libraries of desktops along: it is loaded
// by who has a camera. Its major version is that of its sister.
absl::Status LoadDevices() {
  constexpr char kLibrary[] = "libavdevice.so." AV_STRINGIFY(LIBAVFORMAT_VERSION_MAJOR);
  static void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  void* const registers = library == nullptr ? nullptr : dlsym(library, "avdevice_register_all");
  if (registers == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cameras are read with ", kLibrary, ", which isn't installed (Debian: libavdevice",
        LIBAVFORMAT_VERSION_MAJOR, ")"));
  }
  reinterpret_cast<void (*)()>(registers)();
  return absl::OkStatus();
}

absl::Status BadFormat(const MediaInput& input, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("'", input.label, "': ", what));
}

}  // namespace

class MediaDecoder::Media {
 public:
  Media(MediaInput input, MediaWaits waits) : input_(std::move(input)), waits_(std::move(waits)) {}

  ~Media() {
    avformat_close_input(&format_);
    if (stdin_ != nullptr) av_freep(&stdin_->buffer);
    avio_context_free(&stdin_);
  }

  absl::Status Open() {
    if (absl::Status status = OpenContainer(); !status.ok()) return status;
    return OpenCodec();
  }

  absl::StatusOr<std::shared_ptr<const AVFrame>> Next() {
    FramePtr frame(av_frame_alloc());
    for (;;) {
      const int received = avcodec_receive_frame(codec_.get(), frame.get());
      if (received == 0) {
        if (IsUrl() && start_.has_value() && frame->best_effort_timestamp == AV_NOPTS_VALUE) {
          continue;  // Over RTP the first may come before libav has the others' clock.
        }
        ++frames_;
        return std::shared_ptr<const AVFrame>(std::move(frame));
      }
      if (received == AVERROR_EOF) return AtEnd();
      if (received == AVERROR_INVALIDDATA) {
        ++damaged_;
      } else if (received != AVERROR(EAGAIN)) {
        return Error("can't decode", received);
      }
      if (absl::Status status = FeedPacket(); !status.ok()) return status;
    }
  }

  AVFormatContext& format() const { return *format_; }
  AVStream& stream() const { return *stream_; }
  int64_t start() const { return start_.value_or(0); }

 private:
  bool IsUrl() const { return absl::StrContains(input_.url, "://"); }

  absl::Status OpenContainer() {
    const AVInputFormat* format = nullptr;
    if (input_.format == "v4l2") {
      if (absl::Status status = LoadDevices(); !status.ok()) return status;
    }
    if (!input_.format.empty()) {
      format = av_find_input_format(input_.format.c_str());
      if (format == nullptr) return BadFormat(input_, "this libav doesn't read " + input_.format);
    }
    if (absl::Status status = CheckRawFrames(); !status.ok()) return status;
    AVDictionary* options = nullptr;
    for (const auto& [key, value] : input_.options)
      av_dict_set(&options, key.c_str(), value.c_str(), 0);
    format_ = avformat_alloc_context();
    // What waits in the driver can't be told to end: FeedPacket() asks again and again.
    if (input_.format == "v4l2") format_->flags |= AVFMT_FLAG_NONBLOCK;
    format_->interrupt_callback = {[](void* self) { return static_cast<Media*>(self)->MustEnd(); },
                                   this};
    if (input_.from_stdin) {
      stdin_ = avio_alloc_context(static_cast<unsigned char*>(av_malloc(kStdinBuffer)),
                                  kStdinBuffer, 0, this, ReadStdin, nullptr, nullptr);
      format_->pb = stdin_;
    }
    StartWaiting();
    int error = avformat_open_input(&format_, input_.url.c_str(), format, &options);
    av_dict_free(&options);
    if (error < 0) return Error("can't open", error);
    // What a camera sends over HTTP is a row of pictures that say nothing of the time.
    if (absl::string_view(format_->iformat->name) == "mpjpeg") {
      format_->use_wallclock_as_timestamps = 1;
    }
    if (raw_frame_bytes_ == 0) {  // Of raw frames all is known.
      StartWaiting();
      error = avformat_find_stream_info(format_, nullptr);
      if (error < 0 || MustEnd() != 0) return Error("can't read its streams", error);
    }
    const int index = av_find_best_stream(format_, AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (index < 0) return Error("has no video", index);
    stream_ = format_->streams[index];
    // libav may find out later, and change it.
    if (stream_->start_time != AV_NOPTS_VALUE) start_ = stream_->start_time;
    return absl::OkStatus();
  }

  absl::Status CheckRawFrames() {
    if (input_.format != "rawvideo") return absl::OkStatus();
    const std::string& name = input_.options.at("pixel_format");
    const AVPixelFormat pixels = av_get_pix_fmt(name.c_str());
    if (pixels == AV_PIX_FMT_NONE) {
      return BadFormat(input_, absl::StrCat("'", name,
                                            "' is no format of raw frames; expected "
                                            "rgb24, bgr24, gray8, nv12, yuv420p, …"));
    }
    int width = 0, height = 0;
    av_parse_video_size(&width, &height, input_.options.at("video_size").c_str());
    raw_frame_bytes_ = av_image_get_buffer_size(pixels, width, height, 1);
    if (raw_frame_bytes_ <= 0) return BadFormat(input_, "frames of that size can't be");
    return absl::OkStatus();
  }

  absl::Status OpenCodec() {
    const AVCodec* codec = avcodec_find_decoder(stream_->codecpar->codec_id);
    if (codec == nullptr) return Error("has no known codec", AVERROR_DECODER_NOT_FOUND);
    codec_.reset(avcodec_alloc_context3(codec));
    avcodec_parameters_to_context(codec_.get(), stream_->codecpar);
    codec_->pkt_timebase = stream_->time_base;
    const int error = avcodec_open2(codec_.get(), codec, nullptr);
    if (error < 0) return Error("can't open its codec", error);
    return absl::OkStatus();
  }

  // Hands the stream's next packet to the codec, or the end.
  absl::Status FeedPacket() {
    int error = 0;
    StartWaiting();  // For a packet of ours: others may go on while it has stopped.
    for (;;) {
      error = av_read_frame(format_, packet_.get());
      // When it was told to end, libav first hands out what it had kept.
      if ((error >= 0 || error == AVERROR(EAGAIN)) && MustEnd() != 0) error = AVERROR_EXIT;
      if (error == AVERROR(EAGAIN)) {
        av_usleep(kAgainMicroseconds);
        continue;
      }
      if (error < 0) break;
      const bool ours = packet_->stream_index == stream_->index;
      const bool whole = packet_->size >= raw_frame_bytes_;
      if (ours)
        error = whole ? avcodec_send_packet(codec_.get(), packet_.get()) : AVERROR_INVALIDDATA;
      av_packet_unref(packet_.get());
      if (ours && error != AVERROR_INVALIDDATA) break;
      damaged_ += ours ? 1 : 0;
    }
    av_packet_unref(packet_.get());
    if (error == AVERROR_EOF) error = avcodec_send_packet(codec_.get(), nullptr);
    if (error < 0) return Error("can't read on", error);
    return absl::OkStatus();
  }

  absl::StatusOr<std::shared_ptr<const AVFrame>> AtEnd() const {
    if (raw_frame_bytes_ > 0 && bytes_read_ % raw_frame_bytes_ != 0) {
      return absl::DataLossError(absl::StrCat(
          "'", input_.label, "' ended in the middle of a frame: ", bytes_read_ % raw_frame_bytes_,
          " of its ", raw_frame_bytes_, " bytes came"));
    }
    if (frames_ == 0 && damaged_ > 0) {
      return BadFormat(input_, absl::StrCat("none of ", damaged_, " frames could be decoded"));
    }
    return nullptr;
  }

  // ---- Waiting. libav asks in every wait of its own whether it shall end.

  void StartWaiting() {
    give_up_at_ = waits_.patience == absl::InfiniteDuration()
                      ? SteadyClock::time_point::max()
                      : SteadyClock::now() + absl::ToChronoMilliseconds(waits_.patience);
  }
  int MustEnd() const { return waits_.stopped() || SteadyClock::now() > give_up_at_ ? 1 : 0; }

  static int ReadStdin(void* self, uint8_t* buffer, int size) {
    auto& media = *static_cast<Media*>(self);
    while (media.MustEnd() == 0) {
      pollfd in{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
      const int ready = poll(&in, 1, kPollMilliseconds);
      if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
      const ssize_t count = read(STDIN_FILENO, buffer, size);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return AVERROR(errno);
      if (count == 0) return AVERROR_EOF;
      media.bytes_read_ += count;
      return static_cast<int>(count);
    }
    return AVERROR_EXIT;
  }

  absl::Status Error(const char* what, int error) const {
    if (waits_.stopped()) return absl::CancelledError("reading was stopped");
    if (MustEnd() != 0) {
      return absl::UnavailableError(absl::StrCat("'", input_.label, "': ", what,
                                                 ": nothing came for ",
                                                 absl::FormatDuration(waits_.patience)));
    }
    const std::string message = absl::StrCat("'", input_.label, "': ", what, ": ", AvReason(error));
    if (IsUrl()) return absl::UnavailableError(message);
    if (error == AVERROR(ENOENT)) return absl::NotFoundError(message);
    return absl::InvalidArgumentError(message);
  }

  const MediaInput input_;
  const MediaWaits waits_;
  SteadyClock::time_point give_up_at_;
  int64_t raw_frame_bytes_ = 0;  // 0: no raw frames.
  int64_t bytes_read_ = 0;       // From stdin.
  int64_t frames_ = 0;
  int64_t damaged_ = 0;  // Packets.
  AVIOContext* stdin_ = nullptr;
  AVFormatContext* format_ = nullptr;
  AVStream* stream_ = nullptr;
  std::optional<int64_t> start_;  // The stream's first timestamp, where it has any.
  CodecPtr codec_;
  PacketPtr packet_{av_packet_alloc()};
};

MediaDecoder::MediaDecoder(std::unique_ptr<Media> media) : media_(std::move(media)) {}
MediaDecoder::~MediaDecoder() = default;

absl::StatusOr<std::unique_ptr<MediaDecoder>> MediaDecoder::Open(const MediaInput& input,
                                                                 const MediaWaits& waits) {
  av_log_set_level(AV_LOG_QUIET);  // Errors are returned.
  auto media = std::make_unique<Media>(input, waits);
  if (absl::Status status = media->Open(); !status.ok()) return status;
  return std::unique_ptr<MediaDecoder>(new MediaDecoder(std::move(media)));
}

absl::StatusOr<std::shared_ptr<const AVFrame>> MediaDecoder::Next() { return media_->Next(); }

int64_t MediaDecoder::frame_count() const {
  if (media_->stream().nb_frames > 0) return media_->stream().nb_frames;
  if (media_->format().duration <= 0) return 0;
  return static_cast<int64_t>(
      static_cast<double>(media_->format().duration) / AV_TIME_BASE * frames_per_second() + 0.5);
}

double MediaDecoder::frames_per_second() const {
  const AVRational rate = av_guess_frame_rate(&media_->format(), &media_->stream(), nullptr);
  return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : kDefaultFramesPerSecond;
}

std::optional<absl::Duration> MediaDecoder::TimestampOf(const AVFrame& frame) const {
  if (frame.best_effort_timestamp == AV_NOPTS_VALUE) return std::nullopt;
  return absl::Seconds(static_cast<double>(frame.best_effort_timestamp - media_->start()) *
                       av_q2d(media_->stream().time_base));
}

}  // namespace client
}  // namespace millrace
