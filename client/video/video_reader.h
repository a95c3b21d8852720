// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "client/video/media_decoder.h"
#include "client/video/source_address.h"
#include "client/video/video_frame.h"

namespace millrace {
inline namespace client {

struct VideoReaderOptions {
  // The first frame to return; those before it are decoded and dropped.
  int64_t start_frame = 0;
  CaptureFormat capture = {};
  MediaWaits waits = {};
};

// Reads the frames of one source, one after the other, with libav. Thread-compatible. Debian's
// libav is under the GPL: link this library only where that is fine.
class VideoReader : public FrameSource {
 public:
  // Opens
  //   a video file             people.avi
  //   a picture                person.jpg
  //   a numbered sequence      frame%04d.png  (from the first of 0 … 9 that exists)
  //   a folder or a pattern    frames/, 'frames/*.jpg'  (in the order of their names)
  //   a URL                    rtsp://camera/live, http://camera/video.mjpg
  //   a camera                 /dev/video0
  //   stdin                    -  (raw frames, or a container that libav can tell without seeking)
  // NOT_FOUND, INVALID_ARGUMENT or UNAVAILABLE with libav's reason when there is nothing to read.
  static absl::StatusOr<std::unique_ptr<VideoReader>> Open(const SourceAddress& address,
                                                           VideoReaderOptions options = {});
  ~VideoReader() override;

  absl::StatusOr<std::optional<VideoFrame>> Next() override;

  // The number of frames in the source, from 0, as its container tells; 0 if it doesn't.
  int64_t frame_count() const;

  // As the container tells; 25 for pictures.
  double frames_per_second() const;

 private:
  class Files;
  VideoReader(std::unique_ptr<Files> files, int64_t start_frame);

  const std::unique_ptr<Files> files_;
  const int64_t start_frame_;
  int64_t next_index_ = 0;
};

}  // namespace client
}  // namespace millrace
