// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/picture_decoder.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status.h"
#include "server/transform/orientation.h"
#include "server/transform/picture_geometry.h"
#include "server/transform/png_reader.h"
#include "server/transform/raw_pixels.h"
#include "server/transform/webp_reader.h"

namespace millrace {
namespace {

std::string Names(const std::vector<PictureFormat>& formats) {
  return absl::StrJoin(formats, ", ", [](std::string* out, PictureFormat format) {
    absl::StrAppend(out, PictureFormatName(format));
  });
}

absl::StatusOr<PictureFormat> FormatOf(const Payload& payload, const PictureEncoding& encoding,
                                       const ImageTransform& transform) {
  if (payload.size() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("no bytes came, expected a picture: ", Names(transform.accepted)));
  }
  PictureFormat format = encoding.format;
  if (format == PictureFormat::kDetect) format = DetectPictureFormat(payload);
  if (format == PictureFormat::kDetect) {
    std::array<char, 8> begin = {};
    const size_t count = std::min(begin.size(), payload.size());
    payload.CopyTo(0, {reinterpret_cast<std::byte*>(begin.data()), count});
    return absl::InvalidArgumentError(absl::StrCat(
        "bytes of an unknown format came, beginning with ",
        absl::BytesToHexString({begin.data(), count}), ", expected ", Names(transform.accepted)));
  }
  if (std::find(transform.accepted.begin(), transform.accepted.end(), format) ==
      transform.accepted.end()) {
    return absl::InvalidArgumentError(absl::StrCat("a picture of the format ",
                                                   PictureFormatName(format), " came, expected ",
                                                   Names(transform.accepted)));
  }
  return format;
}

absl::Status CheckPixels(int width, int height, const ImageTransform& transform) {
  if (width < 1 || height < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a picture of ", width, "x", height, " came, which has no pixels"));
  }
  if (int64_t{width} * height > transform.most_pixels) {
    return absl::InvalidArgumentError(absl::StrCat("a picture of ", width, "x", height,
                                                   " came, expected at most ",
                                                   transform.most_pixels, " pixels"));
  }
  return absl::OkStatus();
}

// Of the picture itself, and of the one that it is turned into.
size_t PictureBytes(const PictureHeader& header, int eighths) {
  const auto part = [eighths](int side) { return (static_cast<size_t>(side) * eighths + 7) / 8; };
  const size_t bytes = Picture::kChannels * part(header.width) * part(header.height);
  return header.orientation > 1 ? 2 * bytes : bytes;
}

}  // namespace

absl::StatusOr<PictureHeader> InspectPicture(const Payload& payload,
                                             const PictureEncoding& encoding,
                                             const ImageTransform& transform) {
  MILLRACE_ASSIGN_OR_RETURN(const PictureFormat format, FormatOf(payload, encoding, transform));
  PictureHeader header;
  int eighths = 8;
  size_t besides = 0;
  if (format == PictureFormat::kJpeg) {
    JpegReader reader;
    MILLRACE_ASSIGN_OR_RETURN(header, reader.ReadHeader(payload));
    eighths = EighthsToDecode(transform, header.width, header.height);
    besides = reader.ScratchBytes();
  } else if (format == PictureFormat::kPng) {
    PngReader reader(payload);
    MILLRACE_ASSIGN_OR_RETURN(header, reader.ReadHeader());
    besides = reader.ScratchBytes();
  } else {
    const size_t gathered = payload.pieces().size() > 1 ? payload.size() : 0;
    if (format == PictureFormat::kWebp) {
      std::vector<std::byte> scratch;
      WebpReader reader(InOnePiece(payload, scratch));
      MILLRACE_ASSIGN_OR_RETURN(header, reader.ReadHeader());
      besides = gathered + reader.ScratchBytes();
    } else {
      MILLRACE_RETURN_IF_ERROR(CheckRawPixels(encoding, payload.size()));
      header.format = format;
      header.stored_width = header.width = encoding.width;
      header.stored_height = header.height = encoding.height;
      besides = gathered;
    }
  }
  MILLRACE_RETURN_IF_ERROR(CheckPixels(header.width, header.height, transform));
  header.scratch_bytes = PictureBytes(header, eighths) + besides;
  return header;
}

absl::StatusOr<Picture> PictureDecoder::Decode(const Payload& payload,
                                               const PictureEncoding& encoding,
                                               const ImageTransform& transform) {
  MILLRACE_ASSIGN_OR_RETURN(const PictureFormat format, FormatOf(payload, encoding, transform));
  if (format == PictureFormat::kJpeg) {
    MILLRACE_ASSIGN_OR_RETURN(const PictureHeader header, jpeg_.ReadHeader(payload));
    MILLRACE_RETURN_IF_ERROR(CheckPixels(header.width, header.height, transform));
    MILLRACE_ASSIGN_OR_RETURN(
        Picture stored, jpeg_.Decode(EighthsToDecode(transform, header.width, header.height)));
    return Oriented(std::move(stored), header.orientation);
  }
  if (format == PictureFormat::kPng) {
    PngReader reader(payload);
    MILLRACE_ASSIGN_OR_RETURN(const PictureHeader header, reader.ReadHeader());
    MILLRACE_RETURN_IF_ERROR(CheckPixels(header.width, header.height, transform));
    MILLRACE_ASSIGN_OR_RETURN(Picture stored, reader.Decode());
    return Oriented(std::move(stored), header.orientation);
  }
  // Not kept: a single large picture would stay for good.
  std::vector<std::byte> scratch;
  if (format == PictureFormat::kWebp) {
    WebpReader reader(InOnePiece(payload, scratch));
    MILLRACE_ASSIGN_OR_RETURN(const PictureHeader header, reader.ReadHeader());
    MILLRACE_RETURN_IF_ERROR(CheckPixels(header.width, header.height, transform));
    MILLRACE_ASSIGN_OR_RETURN(Picture stored, reader.Decode());
    return Oriented(std::move(stored), header.orientation);
  }
  MILLRACE_RETURN_IF_ERROR(CheckRawPixels(encoding, payload.size()));
  MILLRACE_RETURN_IF_ERROR(CheckPixels(encoding.width, encoding.height, transform));
  return FromRawPixels(encoding, payload, scratch);
}

}  // namespace millrace
