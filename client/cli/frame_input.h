// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/request.h"
#include "client/tensor.h"
#include "client/video/pixel_scaler.h"
#include "client/video/video_frame.h"

namespace millrace {
inline namespace client {

// How frames travel: as pixels, or each as a JPEG of that quality.
struct FrameEncoding {
  bool jpeg = false;
  int quality = 85;
};

// "raw", "jpeg" or "jpeg:QUALITY", 1 to 100.
absl::StatusOr<FrameEncoding> ParseFrameEncoding(const std::string& text);

// How a model takes frames: its first input, which is UINT8 [height, width, 3], or BYTES for a
// picture of any size (docs/images.md). Thread-safe.
class FrameInput {
 public:
  // `encoding` is what the user wants; by default BYTES get JPEGs and UINT8 gets pixels. With `bgr`
  // pixels are blue, green, red. INVALID_ARGUMENT where the model takes no frames that way.
  static absl::StatusOr<FrameInput> Find(const ModelMetadata& model,
                                         std::optional<FrameEncoding> encoding, bool bgr);

  // A frame as the model takes it.
  struct Encoded {
    Tensor tensor;
    Parameters parameters;  // What the request says of it.
    int width;              // Of what is sent.
    int height;
  };
  absl::StatusOr<Encoded> Encode(const VideoFrame& frame, PixelScaler& scaler) const;

 private:
  FrameInput() = default;

  TensorMetadata input_;
  FrameEncoding encoding_;
  PixelFormat pixels_ = PixelFormat::kRgb24;
  bool batches_ = false;
  int width_ = 0;  // 0: the frame's own.
  int height_ = 0;
};

}  // namespace client
}  // namespace millrace
