// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// A picture is refused, or decoded to what its header says and written to a row. The first four
// bytes choose the settings, the format, and the size of raw pixels; the others are the picture, in
// two pieces.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/base/check.h"
#include "server/transform/orientation.h"
#include "server/transform/picture_decoder.h"
#include "server/transform/row_writer.h"

namespace millrace {
namespace {

ImageTransform TransformOf(uint8_t choice) {
  ImageTransform transform;
  transform.fit = static_cast<Fit>(choice % 3);
  transform.interpolation = static_cast<Interpolation>(choice / 3 % 3);
  transform.color_order = static_cast<ColorOrder>(choice / 9 % 3);
  transform.width = 5 + choice % 16;
  transform.height = 12;
  transform.data_type = choice % 2 == 0 ? DataType::kFp16 : DataType::kUint8;
  transform.layout = choice % 5 == 0 ? Layout::kNhwc : Layout::kNchw;
  transform.most_pixels = 10'000;
  for (int format = 1; format <= static_cast<int>(PictureFormat::kI420); ++format) {
    transform.accepted.push_back(static_cast<PictureFormat>(format));
  }
  return transform;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  const ImageTransform transform = TransformOf(data[0]);
  MILLRACE_CHECK(CheckImageTransform(transform).ok(), "The settings are valid.");
  const PictureEncoding encoding = {
      static_cast<PictureFormat>(data[1] % (static_cast<int>(PictureFormat::kI420) + 1)), data[2],
      data[3]};
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 4, size - 4);
  Payload payload;
  payload.Append(bytes.first(bytes.size() / 3));
  payload.Append(bytes.subspan(bytes.size() / 3));

  static PictureDecoder& decoder = *new PictureDecoder;
  const auto header = InspectPicture(payload, encoding, transform);
  const auto picture = decoder.Decode(payload, encoding, transform);
  ReadOrientation(bytes);
  if (!picture.ok()) {
    MILLRACE_CHECK(absl::IsInvalidArgument(picture.status()), "It is the client's fault.");
    return 0;
  }
  MILLRACE_CHECK(header.ok(), "What can be decoded has a header.");
  MILLRACE_CHECK(picture->original_width() == header->width &&
                     picture->original_height() == header->height &&
                     int64_t{header->width} * header->height <= transform.most_pixels,
                 "A picture is as large as its header says.");
  MILLRACE_CHECK(picture->size_bytes() <= header->scratch_bytes, "Its bytes are foreseen.");
  std::vector<std::byte> row(RowBytes(transform));
  WriteRow(*picture, transform, absl::MakeSpan(row));
  return 0;
}

}  // namespace millrace
