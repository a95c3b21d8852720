// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/transform_config.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

using Image = inference::Millrace::Transform::Image;

bool IsChannels(int64_t dim) { return dim == 1 || dim == 3; }

// The row's size, layout and number of channels, by the input's dims.
absl::Status ReadDims(const ConfigNode& input, inference::ModelInput::Format format,
                      const TensorSpec& spec, ImageTransform& read) {
  const Shape& dims = spec.dims;
  const bool has_three = dims.size() == 3;
  const bool may_be_nchw =
      has_three && IsChannels(dims[0]) && format != inference::ModelInput::FORMAT_NHWC;
  const bool may_be_nhwc =
      has_three && IsChannels(dims[2]) && format != inference::ModelInput::FORMAT_NCHW;
  if (!may_be_nchw && !may_be_nhwc) {
    return input.Error("dims", absl::StrCat(ToString(dims),
                                            " came for pictures, expected "
                                            "[3,height,width] or [height,width,3], or 1 for 3"));
  }
  if (may_be_nchw && may_be_nhwc) {
    return input.Error("format", absl::StrCat("missing: ", ToString(dims),
                                              " may be channels first "
                                              "or last; write FORMAT_NCHW or FORMAT_NHWC"));
  }
  read.layout = may_be_nchw ? Layout::kNchw : Layout::kNhwc;
  const int64_t channels = may_be_nchw ? dims[0] : dims[2];
  const int64_t height = may_be_nchw ? dims[1] : dims[0];
  const int64_t width = may_be_nchw ? dims[2] : dims[1];
  if (height < 1 || width < 1 || height > kMostSide || width > kMostSide) {
    return input.Error("dims", absl::StrCat(ToString(dims),
                                            " came for pictures, expected sides of 1 "
                                            "to ",
                                            kMostSide, ", which don't vary"));
  }
  read.height = static_cast<int>(height);
  read.width = static_cast<int>(width);
  if (channels == 1) read.color_order = ColorOrder::kGray;
  return absl::OkStatus();
}

absl::Status ReadFit(const ConfigNode& node, const Image& config, ImageTransform& read) {
  switch (config.fit()) {
    case Image::FIT_UNSPECIFIED:
    case Image::STRETCH:
      break;
    case Image::LETTERBOX:
      read.fit = Fit::kLetterbox;
      break;
    case Image::CENTER_CROP:
      read.fit = Fit::kCenterCrop;
      break;
    default:
      return node.Error("fit", "expected STRETCH, LETTERBOX or CENTER_CROP");
  }
  switch (config.interpolation()) {
    case Image::INTERPOLATION_UNSPECIFIED:
    case Image::BILINEAR:
      break;
    case Image::AREA:
      read.interpolation = Interpolation::kArea;
      break;
    case Image::NEAREST:
      read.interpolation = Interpolation::kNearest;
      break;
    default:
      return node.Error("interpolation", "expected BILINEAR, AREA or NEAREST");
  }
  constexpr uint32_t kMost = std::numeric_limits<int>::max();
  read.shorter_side = static_cast<int>(std::min(config.shorter_side(), kMost));
  if (config.has_fill()) read.fill = static_cast<int>(std::min(config.fill(), kMost));
  if (config.has_fill() && read.fit != Fit::kLetterbox) {
    return node.Error("fill", "only LETTERBOX has a border; remove it");
  }
  return absl::OkStatus();
}

absl::Status ReadColorOrder(const ConfigNode& node, const Image& config, ImageTransform& read) {
  const bool is_gray = read.color_order == ColorOrder::kGray;
  switch (config.color_order()) {
    case Image::COLOR_ORDER_UNSPECIFIED:
      return absl::OkStatus();
    case Image::RGB:
    case Image::BGR:
      if (is_gray) return node.Error("color_order", "the input has one channel; remove it");
      if (config.color_order() == Image::BGR) read.color_order = ColorOrder::kBgr;
      return absl::OkStatus();
    default:
      return node.Error("color_order", "expected RGB or BGR");
  }
}

absl::Status ReadFormats(const ConfigNode& node, const Image& config, ImageTransform& read) {
  if (config.formats().empty()) return absl::OkStatus();
  read.accepted.clear();
  for (int i = 0; i < config.formats_size(); ++i) {
    const std::string& name = Image::Format_Name(static_cast<Image::Format>(config.formats(i)));
    constexpr absl::string_view kRaw = "RAW_";
    const bool is_raw = absl::string_view(name).substr(0, kRaw.size()) == kRaw;
    const auto format =
        PictureFormatFromName(is_raw ? absl::string_view(name).substr(kRaw.size()) : name);
    if (!format || *format == PictureFormat::kDetect ||
        config.formats(i) == Image::FORMAT_UNSPECIFIED) {
      return node.ErrorAt("formats", i,
                          "expected JPEG, PNG, WEBP, RAW_RGB, RAW_BGR, RAW_GRAY, RAW_NV12 or "
                          "RAW_I420");
    }
    read.accepted.push_back(*format);
  }
  return absl::OkStatus();
}

absl::Status ReadChannels(const ConfigNode& node, const char* field,
                          const google::protobuf::RepeatedField<float>& values, int channels,
                          std::array<float, 3>& read) {
  if (values.empty()) return absl::OkStatus();
  if (values.size() != 1 && values.size() != channels) {
    return node.Error(field, absl::StrCat(values.size(),
                                          " values came, expected one, or one for "
                                          "each channel, ",
                                          channels));
  }
  for (int i = 0; i < channels; ++i) {
    read[static_cast<size_t>(i)] = values[values.size() == 1 ? 0 : i];
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ImageTransform> ReadImageTransform(const ConfigNode& node, const Image& config,
                                                  const ConfigNode& input,
                                                  inference::ModelInput::Format format,
                                                  const TensorSpec& spec) {
  ImageTransform read;
  MILLRACE_RETURN_IF_ERROR(ReadDims(input, format, spec, read));
  MILLRACE_RETURN_IF_ERROR(ReadFit(node, config, read));
  MILLRACE_RETURN_IF_ERROR(ReadColorOrder(node, config, read));
  MILLRACE_RETURN_IF_ERROR(ReadFormats(node, config, read));
  read.data_type = spec.data_type;
  if (config.scale() != 0) read.scale = config.scale();
  MILLRACE_RETURN_IF_ERROR(ReadChannels(node, "mean", config.mean(), Channels(read), read.mean));
  MILLRACE_RETURN_IF_ERROR(ReadChannels(node, "std", config.std(), Channels(read), read.std));
  if (config.most_pixels() > 0) {
    read.most_pixels = static_cast<int64_t>(
        std::min<uint64_t>(config.most_pixels(), std::numeric_limits<int64_t>::max()));
  }
  read.scaled_decoding = !config.full_decoding();
  return read;
}

}  // namespace millrace
