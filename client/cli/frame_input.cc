// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/frame_input.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/bytes_tensor.h"
#include "client/video/jpeg_encoder.h"

namespace millrace {
inline namespace client {
namespace {

constexpr int64_t kLongestSide = 1 << 14;

}  // namespace

absl::StatusOr<FrameEncoding> ParseFrameEncoding(const std::string& text) {
  absl::string_view rest = text;
  if (rest == "raw") return FrameEncoding{};
  FrameEncoding encoding{.jpeg = true};
  if (rest == "jpeg") return encoding;
  if (absl::ConsumePrefix(&rest, "jpeg:") && absl::SimpleAtoi(rest, &encoding.quality) &&
      encoding.quality >= 1 && encoding.quality <= 100) {
    return encoding;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("frames are sent as raw, jpeg or jpeg:QUALITY, 1 to 100; got '", text, "'"));
}

absl::StatusOr<FrameInput> FrameInput::Find(const ModelMetadata& model,
                                            std::optional<FrameEncoding> encoding, bool bgr) {
  FrameInput found;
  found.pixels_ = bgr ? PixelFormat::kBgr24 : PixelFormat::kRgb24;
  if (!model.inputs.empty()) found.input_ = model.inputs[0];
  const std::string type =
      model.inputs.empty() ? "nothing" : DescribeType(found.input_.datatype, found.input_.shape);
  const std::vector<int64_t>& shape = found.input_.shape;
  if (found.input_.datatype == "BYTES" && !shape.empty() && shape.back() == 1) {
    found.encoding_ = encoding.value_or(FrameEncoding{.jpeg = true});
    if (bgr && found.encoding_.jpeg) {
      return absl::InvalidArgumentError("--bgr is for pixels: add --send raw");
    }
    return found;
  }
  found.batches_ = shape.size() == 4 && shape[0] == -1;
  const std::vector<int64_t> dims(shape.begin() + (found.batches_ ? 1 : 0), shape.end());
  if (found.input_.datatype != "UINT8" || dims.size() != 3 || dims[2] != 3) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model '", model.name, "' takes ", type,
        " first; streaming a video needs pictures: UINT8 [height,width,3], or BYTES [1]"));
  }
  if (encoding.has_value() && encoding->jpeg) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model '", model.name, "' takes pixels, ", type,
        "; for JPEGs its config needs `millrace { transform { image { } } }` (docs/images.md)"));
  }
  if (std::max(dims[0], dims[1]) > kLongestSide) {
    return absl::InvalidArgumentError(absl::StrCat("model '", model.name, "' takes pictures of ",
                                                   type, "; expected sides of at most ",
                                                   kLongestSide, " pixels"));
  }
  found.height_ = static_cast<int>(std::max<int64_t>(dims[0], 0));
  found.width_ = static_cast<int>(std::max<int64_t>(dims[1], 0));
  return found;
}

absl::StatusOr<FrameInput::Encoded> FrameInput::Encode(const VideoFrame& frame,
                                                       PixelScaler& scaler) const {
  auto image = scaler.Scale(frame, pixels_, width_, height_);
  if (!image.ok()) return image.status();
  Encoded encoded{.tensor = {}, .parameters = {}, .width = image->width, .height = image->height};
  if (input_.datatype == "UINT8") {
    encoded.tensor = {
        input_.name, "UINT8", {image->height, image->width, 3}, std::move(image->pixels)};
    if (batches_) encoded.tensor.shape.insert(encoded.tensor.shape.begin(), 1);
    return encoded;
  }
  if (encoding_.jpeg) {
    auto jpeg = EncodeJpeg(*image, encoding_.quality);
    if (!jpeg.ok()) return jpeg.status();
    image->pixels = *std::move(jpeg);
    encoded.parameters = {{"millrace_image_format", "JPEG"}};
  } else {
    encoded.parameters = {{"millrace_image_format", pixels_ == PixelFormat::kRgb24 ? "RGB" : "BGR"},
                          {"millrace_image_width", int64_t{image->width}},
                          {"millrace_image_height", int64_t{image->height}}};
  }
  auto tensor = BytesTensor(input_, image->pixels);
  if (!tensor.ok()) return tensor.status();
  encoded.tensor = *std::move(tensor);
  return encoded;
}

}  // namespace client
}  // namespace millrace
