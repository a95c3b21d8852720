// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/video_reader.h"

#include <glob.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/video/av.h"

namespace millrace {
inline namespace client {
namespace {

constexpr double kPicturesPerSecond = 25;

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

// What libav is to open for the source, in order; one input but for sequences of pictures.
absl::StatusOr<std::vector<MediaInput>> InputsOf(const SourceAddress& address,
                                                 const CaptureFormat& capture) {
  std::vector<MediaInput> inputs;
  if (address.kind != SourceAddress::Kind::kFiles) {
    auto input = InputFor(address, capture);
    if (!input.ok()) return input.status();
    inputs.push_back(*std::move(input));
    return inputs;
  }
  auto files = FilesOf(address.name);
  if (!files.ok()) return files.status();
  for (std::string& file : *files) inputs.push_back({.url = file, .label = file});
  return inputs;
}

}  // namespace

// What is behind one name, read one after the other as if it were one video.
class VideoReader::Files {
 public:
  static absl::StatusOr<std::unique_ptr<Files>> Open(const SourceAddress& address,
                                                     const VideoReaderOptions& options) {
    auto inputs = InputsOf(address, options.capture);
    if (!inputs.ok()) return inputs.status();
    auto files = std::unique_ptr<Files>(new Files(*std::move(inputs), options.waits));
    if (absl::Status status = files->OpenNext(); !status.ok()) return status;
    return files;
  }

  absl::StatusOr<std::shared_ptr<const AVFrame>> Next() {
    for (;;) {
      auto frame = decoder_->Next();
      if (!frame.ok() || *frame != nullptr || next_ == inputs_.size()) return frame;
      if (absl::Status status = OpenNext(); !status.ok()) return status;
    }
  }

  absl::Duration TimestampOf(const AVFrame& frame, int64_t index) const {
    const absl::Duration by_rate = absl::Seconds(static_cast<double>(index) / frames_per_second());
    return is_sequence() ? by_rate : decoder_->TimestampOf(frame).value_or(by_rate);
  }
  int64_t frame_count() const {
    return is_sequence() ? static_cast<int64_t>(inputs_.size()) : decoder_->frame_count();
  }
  double frames_per_second() const {
    return is_sequence() ? kPicturesPerSecond : decoder_->frames_per_second();
  }

 private:
  Files(std::vector<MediaInput> inputs, MediaWaits waits)
      : inputs_(std::move(inputs)), waits_(std::move(waits)) {}

  bool is_sequence() const { return inputs_.size() > 1; }

  absl::Status OpenNext() {
    auto decoder = MediaDecoder::Open(inputs_[next_++], waits_);
    if (!decoder.ok()) return decoder.status();
    decoder_ = *std::move(decoder);
    return absl::OkStatus();
  }

  const std::vector<MediaInput> inputs_;
  const MediaWaits waits_;
  size_t next_ = 0;
  std::unique_ptr<MediaDecoder> decoder_;
};

VideoReader::VideoReader(std::unique_ptr<Files> files, int64_t start_frame)
    : files_(std::move(files)), start_frame_(start_frame) {}
VideoReader::~VideoReader() = default;

absl::StatusOr<std::unique_ptr<VideoReader>> VideoReader::Open(const SourceAddress& address,
                                                               VideoReaderOptions options) {
  auto files = Files::Open(address, options);
  if (!files.ok()) return files.status();
  return std::unique_ptr<VideoReader>(new VideoReader(*std::move(files), options.start_frame));
}

absl::StatusOr<std::optional<VideoFrame>> VideoReader::Next() {
  for (;;) {
    auto picture = files_->Next();
    if (!picture.ok()) return picture.status();
    if (*picture == nullptr) return std::optional<VideoFrame>();
    const int64_t index = next_index_++;
    if (index < start_frame_) continue;
    const AVFrame& decoded = **picture;
    return std::optional<VideoFrame>({.index = index,
                                      .timestamp = files_->TimestampOf(decoded, index),
                                      .width = decoded.width,
                                      .height = decoded.height,
                                      .picture = *std::move(picture)});
  }
}

int64_t VideoReader::frame_count() const { return files_->frame_count(); }
double VideoReader::frames_per_second() const { return files_->frames_per_second(); }

}  // namespace client
}  // namespace millrace
