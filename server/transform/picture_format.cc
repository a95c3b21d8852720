// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/picture_format.h"

#include <algorithm>
#include <array>

#include "absl/strings/match.h"

namespace millrace {
namespace {

// Indexed by the enumerator's value.
constexpr std::array<absl::string_view, 9> kNames = {"DETECT", "JPEG", "PNG",  "WEBP", "RGB",
                                                     "BGR",    "GRAY", "NV12", "I420"};

}  // namespace

absl::string_view PictureFormatName(PictureFormat format) {
  return kNames[std::min(static_cast<size_t>(format), kNames.size() - 1)];
}

std::optional<PictureFormat> PictureFormatFromName(absl::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<PictureFormat>(found - kNames.begin());
}

bool IsRaw(PictureFormat format) { return format >= PictureFormat::kRgb; }

PictureFormat DetectPictureFormat(const Payload& payload) {
  std::array<char, 12> bytes = {};
  const size_t count = std::min(bytes.size(), payload.size());
  payload.CopyTo(0, {reinterpret_cast<std::byte*>(bytes.data()), count});
  const absl::string_view begin(bytes.data(), count);
  if (absl::StartsWith(begin, "\xFF\xD8\xFF")) return PictureFormat::kJpeg;
  if (absl::StartsWith(begin, "\x89PNG\r\n\x1A\n")) return PictureFormat::kPng;
  if (count == bytes.size() && absl::StartsWith(begin, "RIFF") && absl::EndsWith(begin, "WEBP")) {
    return PictureFormat::kWebp;
  }
  return PictureFormat::kDetect;
}

}  // namespace millrace
