// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

struct AVFrame;

namespace millrace {
inline namespace client {

// One frame of a source. Cheap to copy: copies share the decoded picture, whose pixels a
// PixelScaler makes.
struct VideoFrame {
  int64_t index = 0;              // Its place in the source, from 0.
  absl::Duration timestamp = {};  // Since the source's beginning.
  int64_t connection = 0;         // Of a live source: how often it was connected again before.
  int width = 0;
  int height = 0;
  std::shared_ptr<const AVFrame> picture = {};
};

// Whatever frames come from. Thread-compatible.
class FrameSource {
 public:
  virtual ~FrameSource() = default;

  // Waits for the next frame and returns it; nothing after the last one.
  virtual absl::StatusOr<std::optional<VideoFrame>> Next() = 0;
};

}  // namespace client
}  // namespace millrace
