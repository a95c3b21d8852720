// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/detections.h"
#include "client/response.h"
#include "client/video/contact_sheet.h"
#include "client/video/image.h"
#include "client/video/pixel_scaler.h"
#include "client/video/video_frame.h"
#include "client/video/video_writer.h"

namespace millrace {
inline namespace client {

// Draws on a source's frames what their answers say, and makes a video and a contact sheet of them.
// Thread-compatible.
class Annotator {
 public:
  struct Options {
    std::string video = {};  // Files to write; empty: none.
    std::string sheet = {};
    int sheet_pictures = 12;
    DetectionFormat format = {};
    double frames_per_second = 25;
  };
  explicit Annotator(Options options);

  // INVALID_ARGUMENT where the names of the files say no format that can be written.
  static absl::Status CheckNames(const Options& options);

  // Adds the next frame, sent in that size, with its answer. An error stands in words on the frame.
  absl::Status Add(const VideoFrame& frame, int sent_width, int sent_height,
                   const absl::StatusOr<Response>& response);

  // Completes the files.
  absl::Status Finish();

 private:
  absl::StatusOr<Image> Draw(const VideoFrame& frame, int sent_width, int sent_height,
                             const absl::StatusOr<Response>& response);

  const Options options_;
  PixelScaler scaler_;
  std::unique_ptr<VideoWriter> writer_;  // From the first frame on.
  ContactSheet sheet_;
};

}  // namespace client
}  // namespace millrace
