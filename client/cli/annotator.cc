// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/annotator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "client/video/drawing.h"

namespace millrace {
inline namespace client {
namespace {

constexpr Color kBlack = {0, 0, 0};
constexpr Color kWhite = {255, 255, 255};
constexpr Color kClasses[] = {{0, 220, 60},  {255, 140, 0}, {40, 150, 255}, {255, 60, 160},
                              {250, 230, 0}, {0, 220, 220}, {180, 90, 255}, {230, 40, 40}};

Color ColorOf(int64_t class_index) {
  return kClasses[std::max<int64_t>(class_index, 0) % std::size(kClasses)];
}

// A coordinate as a pixel's, wherever it lies.
int Pixel(double coordinate, int size) {
  return static_cast<int>(std::lround(std::clamp(coordinate, -1.0 * size, 2.0 * size)));
}

}  // namespace

Annotator::Annotator(Options options)
    : options_(std::move(options)), sheet_(options_.sheet_pictures) {}

absl::Status Annotator::CheckNames(const Options& options) {
  if (!options.video.empty()) {
    if (absl::Status status = VideoWriter::CheckName(options.video); !status.ok()) return status;
  }
  return options.sheet.empty() ? absl::OkStatus() : ContactSheet::CheckName(options.sheet);
}

absl::Status Annotator::Add(const VideoFrame& frame, int sent_width, int sent_height,
                            const absl::StatusOr<Response>& response) {
  const bool on_sheet = !options_.sheet.empty() && sheet_.Wants();
  if (!on_sheet) sheet_.Skip();
  if (!on_sheet && options_.video.empty()) return absl::OkStatus();
  const auto image = Draw(frame, sent_width, sent_height, response);
  if (!image.ok()) return image.status();
  if (on_sheet) {
    if (absl::Status status = sheet_.Add(*image); !status.ok()) return status;
  }
  if (options_.video.empty()) return absl::OkStatus();
  if (writer_ == nullptr) {
    auto writer = VideoWriter::Create(options_.video, image->width, image->height,
                                      options_.frames_per_second);
    if (!writer.ok()) return writer.status();
    writer_ = *std::move(writer);
  }
  return writer_->Write(*image, frame.timestamp);
}

absl::Status Annotator::Finish() {
  absl::Status status = writer_ == nullptr ? absl::OkStatus() : writer_->Finish();
  if (!options_.sheet.empty()) status.Update(sheet_.Save(options_.sheet));
  return status;
}

absl::StatusOr<Image> Annotator::Draw(const VideoFrame& frame, int sent_width, int sent_height,
                                      const absl::StatusOr<Response>& response) {
  auto image = scaler_.Scale(frame, PixelFormat::kRgb24);
  if (!image.ok()) return image;
  const int letters = std::max(1, image->height / 300);
  const int thickness = std::max(2, image->height / 240);
  std::string caption =
      absl::StrFormat("%d  %.2f s", frame.index, absl::ToDoubleSeconds(frame.timestamp));
  if (response.ok()) {
    const Placement placement =
        PlacementOf(*response, frame.width, frame.height, sent_width, sent_height);
    const auto found = FindDetections(*response, options_.format, placement);
    if (!found.ok()) return found.status();
    for (const Detection& detection : *found) {
      const Rectangle box = {
          Pixel(detection.left, image->width), Pixel(detection.top, image->height),
          Pixel(detection.right, image->width), Pixel(detection.bottom, image->height)};
      const Color color = ColorOf(detection.class_index);
      DrawFrame(*image, box, thickness, color);
      if (detection.label.empty()) continue;
      const int above = box.top - TextHeight(letters);
      DrawText(*image, box.left, above >= 0 ? above : box.top, detection.label, letters, kBlack,
               color);
    }
  } else {
    absl::StrAppend(&caption, "  ", absl::StatusCodeToString(response.status().code()));
  }
  DrawText(*image, 0, 0, caption, letters, kWhite, kBlack);
  return image;
}

}  // namespace client
}  // namespace millrace
