// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/response.h"

namespace millrace {
inline namespace client {

// How a model's answer says what it has found: which outputs do, and how boxes are written in them.
struct DetectionFormat {
  enum class Corners { kXyxy, kXywh, kCxcywh };

  std::string boxes =
      {};  // Rows of 4 numbers, perhaps a score, and perhaps a class; none: no boxes.
  Corners corners = Corners::kXyxy;
  bool normalized = false;   // In parts of the input's width and height, not in its pixels.
  std::string scores = {};   // A number for each box.
  std::string classes = {};  // A number for each box.
  std::string count = {};    // How many of the boxes there are; those beyond aren't any.
  std::vector<std::string> labels = {};  // Names of the classes.
  double threshold = 0;                  // Boxes of a lower score aren't any.
};

// Reads OUTPUT[:xyxy|xywh|cxcywh][,normalized] into `format`.
absl::Status ParseBoxes(const std::string& text, DetectionFormat& format);

// Takes what `format` doesn't name from the model's outputs that are called boxes, scores, classes
// and count, among those `wanted`, or all where that is empty. INVALID_ARGUMENT for an output that
// `format` names and the answers won't have.
absl::Status CompleteFormat(const ModelMetadata& model, const std::vector<std::string>& wanted,
                            DetectionFormat& format);

// Where the frame lies in the model's input: x_input = x_frame * scale_x + offset_x.
struct Placement {
  double scale_x, scale_y;
  double offset_x, offset_y;
  double width, height;  // Of the input.
};

// What the server says of it where it made the input of a picture (docs/images.md); else the frame
// was scaled to the size in which it was sent.
Placement PlacementOf(const Response& response, int frame_width, int frame_height, int sent_width,
                      int sent_height);

// One thing found, in pixels of the frame.
struct Detection {
  double left, top, right, bottom;
  int64_t class_index;  // -1: not said.
  std::string label;    // "person 0.87"; what is known of it.
};

// INVALID_ARGUMENT where the outputs aren't as `format` says.
absl::StatusOr<std::vector<Detection>> FindDetections(const Response& response,
                                                      const DetectionFormat& format,
                                                      const Placement& placement);

}  // namespace client
}  // namespace millrace
