// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/image_input.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status.h"
#include "server/transform/picture.h"
#include "server/transform/picture_decoder.h"
#include "server/transform/picture_geometry.h"
#include "server/transform/row_writer.h"

namespace millrace {
namespace {

// What stands before each element of a BYTES tensor: its length.
constexpr size_t kLengthBytes = sizeof(uint32_t);

template <typename... Pieces>
absl::Status Wrong(const Pieces&... pieces) {
  return absl::InvalidArgumentError(absl::StrCat(pieces...));
}

// A request's pictures, one for each row.
class Pictures final : public TransformedInput {
 public:
  explicit Pictures(std::shared_ptr<const ImageTransform> transform)
      : transform_(std::move(transform)) {}

  // Looks at the next row's picture.
  absl::Status Add(Payload payload, const PictureEncoding& encoding) {
    absl::StatusOr<PictureHeader> header = InspectPicture(payload, encoding, *transform_);
    if (!header.ok()) {
      return Wrong("picture ", pictures_.size(), ": ", header.status().message());
    }
    held_bytes_ += static_cast<int64_t>(header->scratch_bytes);
    pictures_.push_back({.payload = std::move(payload),
                         .encoding = encoding,
                         .header = *header,
                         .decoded = std::nullopt});
    return absl::OkStatus();
  }

  int64_t rows() const override { return static_cast<int64_t>(pictures_.size()); }
  int64_t held_bytes() const override { return held_bytes_; }

  absl::Status Prepare(int64_t row) override {
    thread_local PictureDecoder decoder;
    RowPicture& picture = pictures_[static_cast<size_t>(row)];
    absl::StatusOr<Picture> decoded =
        decoder.Decode(picture.payload, picture.encoding, *transform_);
    if (!decoded.ok()) return Wrong("picture ", row, ": ", decoded.status().message());
    picture.decoded = *std::move(decoded);
    return absl::OkStatus();
  }

  void Write(int64_t row, absl::Span<std::byte> area) const override {
    WriteRow(*pictures_[static_cast<size_t>(row)].decoded, *transform_, area);
  }

  // A number for one picture, a list with commas for several.
  void Annotate(Parameters& parameters) const override {
    std::vector<PictureGeometry> geometries;
    for (const RowPicture& picture : pictures_) {
      geometries.push_back(GeometryOf(*transform_, picture.header.width, picture.header.height));
    }
    const auto add = [&](const char* name, auto member, auto as) {
      Parameter& parameter = parameters.emplace_back();
      parameter.name = name;
      if (geometries.size() == 1) {
        parameter.value = static_cast<decltype(as)>(geometries.front().*member);
      } else {
        parameter.value =
            absl::StrJoin(geometries, ",", [&](std::string* out, const PictureGeometry& geometry) {
              absl::StrAppend(out, geometry.*member);
            });
      }
    };
    add("millrace_image_width", &PictureGeometry::width, int64_t{});
    add("millrace_image_height", &PictureGeometry::height, int64_t{});
    add("millrace_image_scale_x", &PictureGeometry::scale_x, double{});
    add("millrace_image_scale_y", &PictureGeometry::scale_y, double{});
    add("millrace_image_offset_x", &PictureGeometry::offset_x, int64_t{});
    add("millrace_image_offset_y", &PictureGeometry::offset_y, int64_t{});
  }

 private:
  struct RowPicture {
    Payload payload;
    PictureEncoding encoding;
    PictureHeader header;
    std::optional<Picture> decoded;
  };

  const std::shared_ptr<const ImageTransform> transform_;
  std::vector<RowPicture> pictures_;
  int64_t held_bytes_ = 0;
};

absl::StatusOr<PictureEncoding> EncodingOf(const Parameters& parameters) {
  PictureEncoding encoding;
  for (const Parameter& parameter : parameters) {
    if (parameter.name == "millrace_image_format") {
      const auto* const name = std::get_if<std::string>(&parameter.value);
      const auto format = name == nullptr ? std::nullopt : PictureFormatFromName(*name);
      if (!format) {
        return Wrong("parameter 'millrace_image_format'",
                     name == nullptr ? "" : absl::StrCat(" is '", *name, "'"),
                     ", expected the name of a format, e.g. JPEG or NV12");
      }
      encoding.format = *format;
      continue;
    }
    int* const size = parameter.name == "millrace_image_width"    ? &encoding.width
                      : parameter.name == "millrace_image_height" ? &encoding.height
                                                                  : nullptr;
    if (size == nullptr) {
      return Wrong("parameter '", parameter.name,
                   "' is not known; those for pictures are "
                   "millrace_image_format, millrace_image_width and millrace_image_height");
    }
    const auto* const pixels = std::get_if<int64_t>(&parameter.value);
    if (pixels == nullptr || *pixels < 1 || *pixels > std::numeric_limits<int>::max()) {
      return Wrong("parameter '", parameter.name, "': expected a number of pixels");
    }
    *size = static_cast<int>(*pixels);
  }
  return encoding;
}

// Files or raw pixels as elements of BYTES, of shape [N, 1] or [N]; without batches [1].
absl::Status AddElements(const InputTensor& input, const PictureEncoding& encoding, bool batched,
                         Pictures& pictures) {
  absl::Span<const int64_t> row = input.shape;
  const int64_t rows = batched && !row.empty() ? row.front() : 1;
  if (batched && !row.empty()) row.remove_prefix(1);
  const bool one_each = (row.size() == 1 && row.front() == 1) || (batched && row.empty());
  if (!one_each || input.shape.empty()) {
    return Wrong("shape ", ToString(input.shape), " came, expected ", batched ? "[-1,1]" : "[1]",
                 " for pictures as BYTES");
  }
  const Payload& payload = input.payload;
  if (rows < 0 || static_cast<uint64_t>(rows) > payload.size() / kLengthBytes) {
    return Wrong(payload.size(), " bytes came, which are no ", rows, " elements of BYTES");
  }
  size_t at = 0;
  for (int64_t i = 0; i < rows; ++i) {
    uint32_t length = 0;
    const bool has_length = payload.size() - at >= kLengthBytes;
    if (has_length) {
      payload.CopyTo(at, absl::MakeSpan(reinterpret_cast<std::byte*>(&length), kLengthBytes));
      at += kLengthBytes;
    }
    if (!has_length || length > payload.size() - at) {
      return Wrong("element ", i, " of BYTES goes beyond the ", payload.size(),
                   " bytes that came; each is a little-endian length of 4 bytes, then its bytes");
    }
    MILLRACE_RETURN_IF_ERROR(pictures.Add(payload.Part(at, length), encoding));
    at += length;
  }
  if (at == payload.size()) return absl::OkStatus();
  return Wrong(payload.size(), " bytes came, ", payload.size() - at, " more than the ", rows,
               " elements of BYTES");
}

// Raw pixels as UINT8, a row of shape [height, width, channels] or [height, width], which are of
// all planes together for NV12 and I420.
absl::Status AddPixels(const InputTensor& input, PictureEncoding encoding, bool batched,
                       Pictures& pictures) {
  absl::Span<const int64_t> row = input.shape;
  const int64_t rows = batched && !row.empty() ? row.front() : 1;
  if (batched && !row.empty()) row.remove_prefix(1);
  const int64_t channels = row.size() == 3 ? row[2] : 1;
  if (row.size() < 2 || row.size() > 3 || (channels != 1 && channels != 3)) {
    return Wrong(
        "shape ", ToString(input.shape),
        " came, expected rows of [height,width,3] or [height,width] for pictures as UINT8");
  }
  if (encoding.format == PictureFormat::kDetect) {
    encoding.format = channels == 3 ? PictureFormat::kRgb : PictureFormat::kGray;
  }
  const bool is_yuv =
      encoding.format == PictureFormat::kNv12 || encoding.format == PictureFormat::kI420;
  const bool is_color =
      encoding.format == PictureFormat::kRgb || encoding.format == PictureFormat::kBgr;
  if (!IsRaw(encoding.format) || is_color != (channels == 3) || (is_yuv && row[0] % 3 != 0)) {
    return Wrong("shape ", ToString(input.shape), " of UINT8 came for pictures of format ",
                 PictureFormatName(encoding.format));
  }
  const int64_t height = is_yuv ? row[0] / 3 * 2 : row[0];
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  const std::optional<int64_t> bytes = ElementCount(input.shape);
  if (!bytes || static_cast<uint64_t>(*bytes) != input.payload.size() || height > kMost ||
      row[1] > kMost) {
    return Wrong(input.payload.size(), " bytes came for shape ", ToString(input.shape),
                 " of UINT8");
  }
  encoding.height = static_cast<int>(height);
  encoding.width = static_cast<int>(row[1]);
  if (*bytes == 0) return Wrong("shape ", ToString(input.shape), " has no pixels");
  const auto row_bytes = static_cast<size_t>(*bytes / rows);
  for (int64_t i = 0; i < rows; ++i) {
    MILLRACE_RETURN_IF_ERROR(
        pictures.Add(input.payload.Part(static_cast<size_t>(i) * row_bytes, row_bytes), encoding));
  }
  return absl::OkStatus();
}

}  // namespace

ImageInput::ImageInput(ImageTransform transform)
    : transform_(std::make_shared<const ImageTransform>(std::move(transform))) {}

absl::StatusOr<std::unique_ptr<TransformedInput>> ImageInput::Take(const InputTensor& input,
                                                                   const Parameters& parameters,
                                                                   bool batched) const {
  if (input.shape.size() > kMostDims) {
    return Wrong("a shape of ", input.shape.size(), " dimensions came, at most ", kMostDims,
                 " are taken");
  }
  MILLRACE_ASSIGN_OR_RETURN(const PictureEncoding encoding, EncodingOf(parameters));
  auto pictures = std::make_unique<Pictures>(transform_);
  if (input.data_type == WireName(DataType::kBytes)) {
    MILLRACE_RETURN_IF_ERROR(AddElements(input, encoding, batched, *pictures));
  } else if (input.data_type == WireName(DataType::kUint8)) {
    MILLRACE_RETURN_IF_ERROR(AddPixels(input, encoding, batched, *pictures));
  } else {
    return Wrong("data type '", input.data_type.substr(0, 128),
                 "' came, expected 'BYTES' for pictures, or 'UINT8' for raw ones");
  }
  return pictures;
}

}  // namespace millrace
