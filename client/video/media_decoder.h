// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/video/source_address.h"

struct AVFrame;

namespace millrace {
inline namespace client {

// How long whoever reads a medium waits for it.
struct MediaWaits {
  // Whether reading shall end, with CANCELLED. Called several times a second, while it waits.
  std::function<bool()> stopped = [] { return false; };
  // How long opening may take, and how long nothing may come; then it ends with UNAVAILABLE.
  absl::Duration patience = absl::InfiniteDuration();
};

// One medium, opened by libav and being decoded: a file, a URL, a camera or stdin. Only for this
// folder. Thread-compatible.
class MediaDecoder {
 public:
  // NOT_FOUND, INVALID_ARGUMENT or UNAVAILABLE (of a URL) with libav's reason where it can't be.
  static absl::StatusOr<std::unique_ptr<MediaDecoder>> Open(const MediaInput& input,
                                                            const MediaWaits& waits);
  ~MediaDecoder();

  // The next frame; null at the end. A damaged packet costs its frame, not the video; an error
  // where that leaves none.
  absl::StatusOr<std::shared_ptr<const AVFrame>> Next();

  // The number of frames, as the container tells; 0 if it doesn't.
  int64_t frame_count() const;
  // As the container tells; 25 if it doesn't.
  double frames_per_second() const;
  // When the frame is shown; nothing where the container doesn't tell.
  std::optional<absl::Duration> TimestampOf(const AVFrame& frame) const;

 private:
  class Media;
  explicit MediaDecoder(std::unique_ptr<Media> media);

  const std::unique_ptr<Media> media_;
};

}  // namespace client
}  // namespace millrace
