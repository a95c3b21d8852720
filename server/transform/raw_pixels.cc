// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/raw_pixels.h"

#include <array>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/transform/row_kernels.h"

namespace millrace {
namespace {

bool IsSubsampled(PictureFormat format) {
  return format == PictureFormat::kNv12 || format == PictureFormat::kI420;
}

// OpenCV's: fixed point with 20 bits of fraction.
constexpr int32_t kHalf = 1 << 19;
constexpr int32_t kUToBlue = 2116026;
constexpr int32_t kUToGreen = -409993;
constexpr int32_t kVToGreen = -852492;
constexpr int32_t kVToRed = 1673527;

void FromYuv(const uint8_t* bytes, bool interleaved, Picture& picture) {
  const RowKernels& kernels = NativeRowKernels();
  const auto width = static_cast<size_t>(picture.width());
  const auto height = static_cast<size_t>(picture.height());
  const size_t step = interleaved ? 2 : 1;
  const uint8_t* u = bytes + width * height;
  const uint8_t* v = interleaved ? u + 1 : u + width * height / 4;
  // What two rows' colours add to red, green and blue.
  std::vector<int32_t> added(3 * width);
  const std::array<const int32_t*, 3> chroma = {&added[0], &added[width], &added[2 * width]};
  for (size_t y = 0; y < height; y += 2) {
    for (size_t x = 0; x < width; x += 2) {
      const int32_t to_blue = u[x / 2 * step] - 128;
      const int32_t to_red = v[x / 2 * step] - 128;
      added[x] = added[x + 1] = kHalf + kVToRed * to_red;
      added[width + x] = added[width + x + 1] = kHalf + kVToGreen * to_red + kUToGreen * to_blue;
      added[2 * width + x] = added[2 * width + x + 1] = kHalf + kUToBlue * to_blue;
    }
    for (const size_t row : {y, y + 1}) {
      kernels.mix_yuv(bytes + row * width, chroma.data(), width,
                      picture.row(static_cast<int>(row)));
    }
    u += width / 2 * step;
    v += width / 2 * step;
  }
}

}  // namespace

absl::Status CheckRawPixels(const PictureEncoding& encoding, size_t bytes) {
  const auto name = PictureFormatName(encoding.format);
  const auto size = absl::StrCat(encoding.width, "x", encoding.height);
  if (encoding.width < 1 || encoding.height < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the size ", size, " came with ", name, ", expected a width and a height of at least 1"));
  }
  if (IsSubsampled(encoding.format) && (encoding.width % 2 != 0 || encoding.height % 2 != 0)) {
    return absl::InvalidArgumentError(absl::StrCat("the size ", size, " came with ", name,
                                                   ", expected an even width and height"));
  }
  const size_t pixels = static_cast<size_t>(encoding.width) * static_cast<size_t>(encoding.height);
  const size_t expected = encoding.format == PictureFormat::kGray ? pixels
                          : IsSubsampled(encoding.format)         ? pixels / 2 * 3
                                                                  : pixels * 3;
  if (bytes == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(bytes, " bytes came, expected ", expected, " for ", size, " of ", name));
}

absl::Span<const std::byte> InOnePiece(const Payload& payload, std::vector<std::byte>& scratch) {
  if (payload.pieces().empty()) return {};
  if (payload.pieces().size() == 1) return payload.pieces()[0];
  scratch.resize(payload.size());
  payload.CopyTo(0, absl::MakeSpan(scratch));
  return scratch;
}

Picture FromRawPixels(const PictureEncoding& encoding, const Payload& payload,
                      std::vector<std::byte>& scratch) {
  Picture picture(encoding.width, encoding.height);
  uint8_t* const pixels = picture.row(0);
  const size_t size = picture.size_bytes();
  if (encoding.format == PictureFormat::kRgb || encoding.format == PictureFormat::kBgr) {
    payload.CopyTo(0, {reinterpret_cast<std::byte*>(pixels), size});
    if (encoding.format == PictureFormat::kRgb) return picture;
    for (size_t i = 0; i < size; i += Picture::kChannels) std::swap(pixels[i], pixels[i + 2]);
    return picture;
  }
  const auto* const bytes = reinterpret_cast<const uint8_t*>(InOnePiece(payload, scratch).data());
  if (encoding.format == PictureFormat::kGray) {
    for (size_t i = 0; i < size; ++i) pixels[i] = bytes[i / Picture::kChannels];
  } else {
    FromYuv(bytes, encoding.format == PictureFormat::kNv12, picture);
  }
  return picture;
}

}  // namespace millrace
