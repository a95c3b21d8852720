// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/video_reader.h"

#include <glob.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>
}

namespace millrace {
inline namespace client {
namespace {

constexpr double kPicturesPerSecond = 25;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(&object);
  }
};
using FormatPtr = std::unique_ptr<AVFormatContext, Deleter<avformat_close_input>>;
using CodecPtr = std::unique_ptr<AVCodecContext, Deleter<avcodec_free_context>>;
using PacketPtr = std::unique_ptr<AVPacket, Deleter<av_packet_free>>;
using FramePtr = std::unique_ptr<AVFrame, Deleter<av_frame_free>>;

absl::Status AvError(const std::string& path, const char* what, int error) {
  char reason[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(error, reason, sizeof(reason));
  const std::string message = absl::StrCat("'", path, "': ", what, ": ", reason);
  if (error == AVERROR(ENOENT)) return absl::NotFoundError(message);
  return absl::InvalidArgumentError(message);
}

bool Exists(const std::string& path) { return std::filesystem::exists(path); }

// The files that match a shell pattern, sorted by name.
std::vector<std::string> Glob(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> files;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) {
      if (std::filesystem::is_regular_file(found.gl_pathv[i])) files.push_back(found.gl_pathv[i]);
    }
  }
  globfree(&found);
  return files;
}

// Whether `pattern` holds exactly one conversion, of the form %d or %04d.
bool IsNumbered(const std::string& pattern) {
  const size_t percent = pattern.find('%');
  if (percent == std::string::npos || pattern.find('%', percent + 1) != std::string::npos) {
    return false;
  }
  const size_t letter = pattern.find_first_not_of("0123456789", percent + 1);
  return letter != std::string::npos && pattern[letter] == 'd' && letter - percent <= 3;
}

std::string Number(const std::string& pattern, int number) {
  std::string path(pattern.size() + 100, '\0');
  path.resize(std::snprintf(path.data(), path.size(), pattern.c_str(), number));
  return path;
}

std::vector<std::string> NumberedFiles(const std::string& pattern) {
  int number = 0;
  while (number < 9 && !Exists(Number(pattern, number))) ++number;
  std::vector<std::string> files;
  for (; Exists(Number(pattern, number)); ++number) files.push_back(Number(pattern, number));
  return files;
}

// The files that `source` names, in order; one for a video.
absl::StatusOr<std::vector<std::string>> FilesOf(const std::string& source) {
  std::vector<std::string> files;
  if (std::filesystem::is_directory(source)) {
    files = Glob(absl::StrCat(source, "/*"));
  } else if (Exists(source)) {
    files = {source};
  } else if (IsNumbered(source)) {
    files = NumberedFiles(source);
  } else {
    files = Glob(source);
  }
  if (files.empty()) {
    return absl::NotFoundError(absl::StrCat(
        "'", source, "' is no video, picture, folder or pattern that names an existing file"));
  }
  return files;
}

// One file, opened and being decoded.
class Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<Decoder>> Open(const std::string& path) {
    auto decoder = std::unique_ptr<Decoder>(new Decoder(path));
    if (absl::Status status = decoder->OpenContainer(); !status.ok()) return status;
    if (absl::Status status = decoder->OpenCodec(); !status.ok()) return status;
    return decoder;
  }

  // The next frame, owned by the decoder and valid until the next call; null at the end.
  absl::StatusOr<const AVFrame*> Next() {
    for (;;) {
      const int received = avcodec_receive_frame(codec_.get(), frame_.get());
      if (received == 0) return frame_.get();
      if (received == AVERROR_EOF) return nullptr;
      if (received != AVERROR(EAGAIN)) return AvError(path_, "can't decode", received);
      if (absl::Status status = FeedPacket(); !status.ok()) return status;
    }
  }

  int64_t frame_count() const {
    if (stream_->nb_frames > 0) return stream_->nb_frames;
    if (format_->duration <= 0) return 0;
    return static_cast<int64_t>(
        static_cast<double>(format_->duration) / AV_TIME_BASE * frames_per_second() + 0.5);
  }
  double frames_per_second() const {
    const AVRational rate = av_guess_frame_rate(format_.get(), stream_, nullptr);
    return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : kPicturesPerSecond;
  }
  // When the current frame is shown; nothing where the container doesn't tell.
  std::optional<absl::Duration> timestamp() const {
    if (frame_->best_effort_timestamp == AV_NOPTS_VALUE) return std::nullopt;
    const int64_t start = stream_->start_time == AV_NOPTS_VALUE ? 0 : stream_->start_time;
    return absl::Seconds(static_cast<double>(frame_->best_effort_timestamp - start) *
                         av_q2d(stream_->time_base));
  }

 private:
  explicit Decoder(std::string path) : path_(std::move(path)) {}

  absl::Status OpenContainer() {
    AVFormatContext* format = nullptr;
    int error = avformat_open_input(&format, path_.c_str(), nullptr, nullptr);
    if (error < 0) return AvError(path_, "can't open", error);
    format_.reset(format);
    error = avformat_find_stream_info(format, nullptr);
    if (error < 0) return AvError(path_, "can't read its streams", error);
    const int index = av_find_best_stream(format, AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (index < 0) return AvError(path_, "has no video", index);
    stream_ = format->streams[index];
    return absl::OkStatus();
  }

  absl::Status OpenCodec() {
    const AVCodec* codec = avcodec_find_decoder(stream_->codecpar->codec_id);
    if (codec == nullptr) return AvError(path_, "has no known codec", AVERROR_DECODER_NOT_FOUND);
    codec_.reset(avcodec_alloc_context3(codec));
    avcodec_parameters_to_context(codec_.get(), stream_->codecpar);
    codec_->pkt_timebase = stream_->time_base;
    const int error = avcodec_open2(codec_.get(), codec, nullptr);
    if (error < 0) return AvError(path_, "can't open its codec", error);
    return absl::OkStatus();
  }

  // Hands the stream's next packet to the codec, or the end.
  absl::Status FeedPacket() {
    int error = 0;
    while ((error = av_read_frame(format_.get(), packet_.get())) >= 0) {
      const bool ours = packet_->stream_index == stream_->index;
      if (ours) error = avcodec_send_packet(codec_.get(), packet_.get());
      av_packet_unref(packet_.get());
      // A damaged packet costs its frame, not the video.
      if (ours && error != AVERROR_INVALIDDATA) break;
    }
    if (error == AVERROR_EOF) error = avcodec_send_packet(codec_.get(), nullptr);
    if (error < 0) return AvError(path_, "can't read on", error);
    return absl::OkStatus();
  }

  const std::string path_;
  FormatPtr format_;
  AVStream* stream_ = nullptr;
  CodecPtr codec_;
  PacketPtr packet_{av_packet_alloc()};
  FramePtr frame_{av_frame_alloc()};
};

}  // namespace

// The files behind one name, read one after the other as if they were one video.
class VideoReader::Source {
 public:
  static absl::StatusOr<std::unique_ptr<Source>> Open(const std::string& name) {
    auto files = FilesOf(name);
    if (!files.ok()) return files.status();
    auto source = std::unique_ptr<Source>(new Source(*std::move(files)));
    if (absl::Status status = source->OpenNextFile(); !status.ok()) return status;
    return source;
  }

  absl::StatusOr<const AVFrame*> Next() {
    for (;;) {
      const auto frame = decoder_->Next();
      if (!frame.ok() || *frame != nullptr || next_file_ == files_.size()) return frame;
      if (absl::Status status = OpenNextFile(); !status.ok()) return status;
    }
  }

  absl::Duration TimestampOf(int64_t index) const {
    const absl::Duration by_rate = absl::Seconds(static_cast<double>(index) / frames_per_second());
    return is_sequence() ? by_rate : decoder_->timestamp().value_or(by_rate);
  }
  int64_t frame_count() const {
    return is_sequence() ? static_cast<int64_t>(files_.size()) : decoder_->frame_count();
  }
  double frames_per_second() const {
    return is_sequence() ? kPicturesPerSecond : decoder_->frames_per_second();
  }

 private:
  explicit Source(std::vector<std::string> files) : files_(std::move(files)) {}

  bool is_sequence() const { return files_.size() > 1; }

  absl::Status OpenNextFile() {
    auto decoder = Decoder::Open(files_[next_file_++]);
    if (!decoder.ok()) return decoder.status();
    decoder_ = *std::move(decoder);
    return absl::OkStatus();
  }

  const std::vector<std::string> files_;
  size_t next_file_ = 0;
  std::unique_ptr<Decoder> decoder_;
};

// Turns decoded frames into packed pixels of the wanted size.
class VideoReader::Scaler {
 public:
  ~Scaler() { sws_freeContext(context_); }

  absl::Status Scale(const AVFrame& from, const VideoReaderOptions& options, VideoFrame& to) {
    const bool rgb = options.format == VideoReaderOptions::PixelFormat::kRgb24;
    to.width = options.width > 0 ? options.width : from.width;
    to.height = options.height > 0 ? options.height : from.height;
    context_ = sws_getCachedContext(context_, from.width, from.height,
                                    static_cast<AVPixelFormat>(from.format), to.width, to.height,
                                    rgb ? AV_PIX_FMT_RGB24 : AV_PIX_FMT_BGR24, SWS_BILINEAR,
                                    nullptr, nullptr, nullptr);
    if (context_ == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("can't scale a picture of ", from.width, "x",
                                                     from.height, " to ", to.width, "x",
                                                     to.height));
    }
    const size_t size = size_t{3} * to.width * to.height;
    to.pixels.resize(size + AV_INPUT_BUFFER_PADDING_SIZE);  // swscale may write past the last row
    uint8_t* const planes[] = {reinterpret_cast<uint8_t*>(to.pixels.data())};
    const int strides[] = {3 * to.width};
    sws_scale(context_, from.data, from.linesize, 0, from.height, planes, strides);
    to.pixels.resize(size);
    return absl::OkStatus();
  }

 private:
  SwsContext* context_ = nullptr;
};

VideoReader::VideoReader(std::unique_ptr<Source> source, VideoReaderOptions options)
    : options_(options), source_(std::move(source)), scaler_(std::make_unique<Scaler>()) {}
VideoReader::~VideoReader() = default;

absl::StatusOr<std::unique_ptr<VideoReader>> VideoReader::Open(const std::string& source,
                                                               VideoReaderOptions options) {
  av_log_set_level(AV_LOG_QUIET);  // errors are returned
  auto opened = Source::Open(source);
  if (!opened.ok()) return opened.status();
  return std::unique_ptr<VideoReader>(new VideoReader(*std::move(opened), options));
}

absl::StatusOr<std::optional<VideoFrame>> VideoReader::Next() {
  for (;;) {
    const auto decoded = source_->Next();
    if (!decoded.ok()) return decoded.status();
    if (*decoded == nullptr) return std::optional<VideoFrame>();
    VideoFrame frame;
    frame.index = next_index_++;
    if (frame.index < options_.start_frame) continue;
    frame.timestamp = source_->TimestampOf(frame.index);
    if (absl::Status status = scaler_->Scale(**decoded, options_, frame); !status.ok()) {
      return status;
    }
    return std::optional<VideoFrame>(std::move(frame));
  }
}

int64_t VideoReader::frame_count() const { return source_->frame_count(); }
double VideoReader::frames_per_second() const { return source_->frames_per_second(); }

}  // namespace client
}  // namespace millrace
