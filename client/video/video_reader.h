// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace millrace {
inline namespace client {

// One picture, as packed rows of 3 bytes per pixel: [height, width, 3].
struct VideoFrame {
  int64_t index = 0;         // its place in the source, from 0
  absl::Duration timestamp;  // since the source's beginning
  int width = 0;
  int height = 0;
  std::string pixels;
};

struct VideoReaderOptions {
  // The size of the frames; 0 keeps the source's own. Scaling is bilinear.
  int width = 0;
  int height = 0;
  enum class PixelFormat { kRgb24, kBgr24 } format = PixelFormat::kRgb24;
  // The first frame to return; those before it are decoded and dropped.
  int64_t start_frame = 0;
};

// Reads the frames of a video file or of a sequence of images, one after the other, with libav.
// Thread-compatible. Debian's libav is under the GPL: link this library only where that is fine.
class VideoReader {
 public:
  // Opens `source`:
  //   a video file             people.avi
  //   a picture                person.jpg
  //   a numbered sequence      frame%04d.png  (from the first of 0 … 9 that exists)
  //   a folder or a pattern    frames/, 'frames/*.jpg'  (in the order of their names)
  // NOT_FOUND or INVALID_ARGUMENT with libav's reason when there is nothing to read.
  static absl::StatusOr<std::unique_ptr<VideoReader>> Open(const std::string& source,
                                                           VideoReaderOptions options = {});
  ~VideoReader();
  VideoReader(const VideoReader&) = delete;
  VideoReader& operator=(const VideoReader&) = delete;

  // Decodes and returns the next frame; nothing after the last one.
  absl::StatusOr<std::optional<VideoFrame>> Next();

  // The number of frames in the source, from 0, as its container tells; 0 if it doesn't.
  int64_t frame_count() const;

  // As the container tells; 25 for pictures.
  double frames_per_second() const;

 private:
  class Source;
  class Scaler;
  VideoReader(std::unique_ptr<Source> source, VideoReaderOptions options);

  const VideoReaderOptions options_;
  const std::unique_ptr<Source> source_;
  const std::unique_ptr<Scaler> scaler_;
  int64_t next_index_ = 0;
};

}  // namespace client
}  // namespace millrace
