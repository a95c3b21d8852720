// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/image_transform.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// Puts together "FIELD: VALUE came, expected EXPECTED".
template <typename T>
absl::Status Unexpected(absl::string_view field, const T& value, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", value, " came, expected ", expected));
}

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return Unexpected(field, value, absl::StrCat(least, " to ", most));
}

absl::Status CheckGeometry(const ImageTransform& transform) {
  MILLRACE_RETURN_IF_ERROR(CheckRange("width", transform.width, 1, kMostSide));
  MILLRACE_RETURN_IF_ERROR(CheckRange("height", transform.height, 1, kMostSide));
  MILLRACE_RETURN_IF_ERROR(CheckRange("fill", transform.fill, 0, 255));
  if (transform.shorter_side == 0) return absl::OkStatus();
  if (transform.fit != Fit::kCenterCrop) {
    return Unexpected("shorter_side", transform.shorter_side, "0 but for CENTER_CROP");
  }
  return CheckRange("shorter_side", transform.shorter_side,
                    std::max(transform.width, transform.height), kMostSide);
}

absl::Status CheckNormalisation(const ImageTransform& transform) {
  const bool is_float = transform.data_type == DataType::kFp32 ||
                        transform.data_type == DataType::kFp16 ||
                        transform.data_type == DataType::kBf16;
  if (!is_float && transform.data_type != DataType::kUint8) {
    return Unexpected("data_type", WireName(transform.data_type), "FP32, FP16, BF16 or UINT8");
  }
  if (!std::isfinite(transform.scale) || transform.scale == 0) {
    return Unexpected("scale", transform.scale, "a number other than 0");
  }
  if (!is_float && transform.scale != 1) {
    return Unexpected("scale", transform.scale, "1 for UINT8, which is not normalised");
  }
  for (int i = 0; i < Channels(transform); ++i) {
    const auto c = static_cast<size_t>(i);
    if (!std::isfinite(transform.mean[c])) {
      return Unexpected(absl::StrCat("mean[", c, "]"), transform.mean[c], "a number");
    }
    if (!std::isfinite(transform.std[c]) || transform.std[c] <= 0) {
      return Unexpected(absl::StrCat("std[", c, "]"), transform.std[c], "a number above 0");
    }
    if (!is_float && (transform.mean[c] != 0 || transform.std[c] != 1)) {
      return Unexpected(absl::StrCat("mean[", c, "], std[", c, "]"),
                        absl::StrCat(transform.mean[c], ", ", transform.std[c]),
                        "0, 1 for UINT8, which is not normalised");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckImageTransform(const ImageTransform& transform) {
  MILLRACE_RETURN_IF_ERROR(CheckGeometry(transform));
  MILLRACE_RETURN_IF_ERROR(CheckNormalisation(transform));
  MILLRACE_RETURN_IF_ERROR(CheckRange("most_pixels", transform.most_pixels, 1, kMostPixels));
  if (transform.accepted.empty()) return Unexpected("accepted", "nothing", "at least one format");
  for (const PictureFormat format : transform.accepted) {
    if (format == PictureFormat::kDetect) {
      return Unexpected("accepted", PictureFormatName(format), "the formats themselves");
    }
  }
  return absl::OkStatus();
}

int Channels(const ImageTransform& transform) {
  return transform.color_order == ColorOrder::kGray ? 1 : 3;
}

Shape RowDims(const ImageTransform& transform) {
  const int channels = Channels(transform);
  if (transform.layout == Layout::kNchw) return {channels, transform.height, transform.width};
  return {transform.height, transform.width, channels};
}

size_t RowBytes(const ImageTransform& transform) {
  return static_cast<size_t>(Channels(transform)) * static_cast<size_t>(transform.height) *
         static_cast<size_t>(transform.width) * ElementSize(transform.data_type);
}

}  // namespace millrace
