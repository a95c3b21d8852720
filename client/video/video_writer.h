// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/video/image.h"

namespace millrace {
inline namespace client {

// Writes pictures into a video file. Thread-compatible.
class VideoWriter {
 public:
  // The file's ending says which container: .mp4, .mkv, .avi, …; what is there is replaced. Frames
  // get the size given, less a pixel where that is odd. They are encoded as H.264 where libav can
  // and the container isn't AVI, else as MPEG-4.
  static absl::StatusOr<std::unique_ptr<VideoWriter>> Create(const std::string& path, int width,
                                                             int height, double frames_per_second);
  // INVALID_ARGUMENT where the name's ending is no container's.
  static absl::Status CheckName(const std::string& path);

  // Finishes.
  ~VideoWriter();

  // Adds a picture, scaled to the video's size, that is shown from `timestamp` on, or a moment
  // after the one before it where that is later.
  absl::Status Write(const Image& image, absl::Duration timestamp);

  // Completes the file: without that most players refuse it.
  absl::Status Finish();

 private:
  class Muxer;
  explicit VideoWriter(std::unique_ptr<Muxer> muxer);

  const std::unique_ptr<Muxer> muxer_;
};

}  // namespace client
}  // namespace millrace
