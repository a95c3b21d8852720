// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/detections.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/cli/tensor_json.h"

namespace millrace {
inline namespace client {
namespace {

using Corners = DetectionFormat::Corners;

constexpr double kMostClasses = 1e9;  // A larger number is none of a class.

// An output's elements; those that are no numbers are NaN.
absl::StatusOr<std::vector<double>> NumbersOf(const Response& response, const std::string& output) {
  const auto tensor = response.Output(output);
  if (!tensor.ok()) return tensor.status();
  std::vector<double> numbers;
  for (const auto& element : ElementsToJson(**tensor)) {
    numbers.push_back(element.is_number() ? element.get<double>()
                                          : std::numeric_limits<double>::quiet_NaN());
  }
  return numbers;
}

// The same of an output with a number for each of `boxes` boxes; nothing where there is none.
absl::StatusOr<std::vector<double>> OneForEach(const Response& response, const std::string& output,
                                               size_t boxes) {
  if (output.empty()) return std::vector<double>();
  auto numbers = NumbersOf(response, output);
  if (!numbers.ok() || numbers->size() == boxes) return numbers;
  return absl::InvalidArgumentError(absl::StrCat("output '", output, "' has ", numbers->size(),
                                                 " elements for ", boxes,
                                                 " boxes; expected one for each"));
}

double NumberOf(const Parameters& parameters, const std::string& name, double otherwise) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return otherwise;
  if (const auto* number = std::get_if<double>(&found->second)) return *number;
  if (const auto* number = std::get_if<int64_t>(&found->second)) {
    return static_cast<double>(*number);
  }
  return otherwise;
}

std::string LabelOf(const DetectionFormat& format, int64_t class_index,
                    std::optional<double> score) {
  std::vector<std::string> words;
  if (class_index >= 0) {
    const bool named = class_index < static_cast<int64_t>(format.labels.size());
    words.push_back(named ? format.labels[class_index] : absl::StrCat(class_index));
  }
  if (score.has_value()) words.push_back(absl::StrFormat("%.2f", *score));
  return absl::StrJoin(words, " ");
}

}  // namespace

absl::Status ParseBoxes(const std::string& text, DetectionFormat& format) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  format.boxes = parts.first;
  for (const absl::string_view word : absl::StrSplit(parts.second, ',', absl::SkipEmpty())) {
    if (word == "xyxy") {
      format.corners = Corners::kXyxy;
    } else if (word == "xywh") {
      format.corners = Corners::kXywh;
    } else if (word == "cxcywh") {
      format.corners = Corners::kCxcywh;
    } else if (word == "normalized") {
      format.normalized = true;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("boxes are OUTPUT[:xyxy|xywh|cxcywh][,normalized]; got '", word, "'"));
    }
  }
  return absl::OkStatus();
}

absl::Status CompleteFormat(const ModelMetadata& model, const std::vector<std::string>& wanted,
                            DetectionFormat& format) {
  std::vector<std::string> outputs;
  for (const TensorMetadata& output : model.outputs) {
    if (wanted.empty() || absl::c_linear_search(wanted, output.name)) {
      outputs.push_back(output.name);
    }
  }
  const std::pair<const char*, std::string*> roles[] = {{"boxes", &format.boxes},
                                                        {"scores", &format.scores},
                                                        {"classes", &format.classes},
                                                        {"count", &format.count}};
  for (const auto& [role, name] : roles) {
    if (name->empty() && absl::c_linear_search(outputs, role)) *name = role;
    if (!name->empty() && !absl::c_linear_search(outputs, *name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", role, " ", *name, ": the answers have no such output; they have ",
                       absl::StrJoin(outputs, ", ")));
    }
  }
  return absl::OkStatus();
}

Placement PlacementOf(const Response& response, int frame_width, int frame_height, int sent_width,
                      int sent_height) {
  const Parameters& parameters = response.parameters;
  if (parameters.count("millrace_image_scale_x") == 0) {
    return {1.0 * sent_width / frame_width,
            1.0 * sent_height / frame_height,
            0,
            0,
            1.0 * sent_width,
            1.0 * sent_height};
  }
  // A letterbox has as much border on both sides, to a pixel, and so is what is cut off of a crop.
  Placement placement = {NumberOf(parameters, "millrace_image_scale_x", 1),
                         NumberOf(parameters, "millrace_image_scale_y", 1),
                         NumberOf(parameters, "millrace_image_offset_x", 0),
                         NumberOf(parameters, "millrace_image_offset_y", 0),
                         0,
                         0};
  placement.width = frame_width * placement.scale_x + 2 * placement.offset_x;
  placement.height = frame_height * placement.scale_y + 2 * placement.offset_y;
  return placement;
}

absl::StatusOr<std::vector<Detection>> FindDetections(const Response& response,
                                                      const DetectionFormat& format,
                                                      const Placement& placement) {
  std::vector<Detection> found;
  if (format.boxes.empty()) return found;
  const auto numbers = NumbersOf(response, format.boxes);
  if (!numbers.ok()) return numbers.status();
  const Tensor& tensor = **response.Output(format.boxes);
  const int64_t columns = tensor.shape.empty() ? 0 : tensor.shape.back();
  if (columns < 4 || columns > 6) {
    return absl::InvalidArgumentError(
        absl::StrCat("output '", format.boxes, "' is ", DescribeType(tensor.datatype, tensor.shape),
                     "; boxes are rows of 4 numbers, or 6 with score and class"));
  }
  size_t boxes = numbers->size() / columns;
  const auto scores = OneForEach(response, format.scores, boxes);
  if (!scores.ok()) return scores.status();
  const auto classes = OneForEach(response, format.classes, boxes);
  if (!classes.ok()) return classes.status();
  if (!format.count.empty()) {
    const auto count = NumbersOf(response, format.count);
    if (!count.ok()) return count.status();
    if (!count->empty() && (*count)[0] >= 0 && (*count)[0] < static_cast<double>(boxes)) {
      boxes = static_cast<size_t>((*count)[0]);
    }
  }
  for (size_t i = 0; i < boxes; ++i) {
    const double* const row = numbers->data() + i * columns;
    std::optional<double> score;
    if (!scores->empty()) {
      score = (*scores)[i];
    } else if (columns > 4) {
      score = row[4];
    }
    if (score.has_value() && !(*score >= format.threshold)) continue;
    const double category = !classes->empty() ? (*classes)[i] : columns > 5 ? row[5] : -1;
    double x = row[0], y = row[1], right = row[2], bottom = row[3];
    if (format.corners == Corners::kCxcywh) {
      x -= right / 2;
      y -= bottom / 2;
    }
    if (format.corners != Corners::kXyxy) {
      right += x;
      bottom += y;
    }
    const double unit_x = format.normalized ? placement.width : 1;
    const double unit_y = format.normalized ? placement.height : 1;
    const auto to_frame = [](double value, double unit, double offset, double scale) {
      return (value * unit - offset) / scale;
    };
    Detection detection{to_frame(x, unit_x, placement.offset_x, placement.scale_x),
                        to_frame(y, unit_y, placement.offset_y, placement.scale_y),
                        to_frame(right, unit_x, placement.offset_x, placement.scale_x),
                        to_frame(bottom, unit_y, placement.offset_y, placement.scale_y),
                        std::abs(category) < kMostClasses ? std::llround(category) : -1,
                        {}};
    if (!(detection.right > detection.left) || !(detection.bottom > detection.top)) continue;
    detection.label = LabelOf(format, detection.class_index, score);
    found.push_back(std::move(detection));
  }
  return found;
}

}  // namespace client
}  // namespace millrace
