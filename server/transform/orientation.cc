// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/orientation.h"

#include <libexif/exif-data.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace millrace {
namespace {

constexpr size_t kMostExifBytes = 1 << 16;  // A JPEG segment holds no more.
constexpr char kPrefix[] = {'E', 'x', 'i', 'f', 0, 0};

struct Unref {
  void operator()(ExifData* data) const { exif_data_unref(data); }
};

}  // namespace

int ReadOrientation(absl::Span<const std::byte> exif) {
  std::vector<unsigned char> block;
  const bool prefixed =
      exif.size() >= sizeof(kPrefix) && std::memcmp(exif.data(), kPrefix, sizeof(kPrefix)) == 0;
  if (!prefixed) block.assign(std::begin(kPrefix), std::end(kPrefix));
  const auto* const bytes = reinterpret_cast<const unsigned char*>(exif.data());
  block.insert(block.end(), bytes, bytes + std::min(exif.size(), kMostExifBytes));

  const std::unique_ptr<ExifData, Unref> data(exif_data_new());
  if (data == nullptr) return 1;
  exif_data_unset_option(data.get(), EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
  exif_data_load_data(data.get(), block.data(), static_cast<unsigned int>(block.size()));
  const ExifEntry* const entry =
      exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry == nullptr || entry->format != EXIF_FORMAT_SHORT || entry->components < 1 ||
      entry->size < sizeof(ExifShort)) {
    return 1;
  }
  const int orientation = exif_get_short(entry->data, exif_data_get_byte_order(data.get()));
  return orientation >= 1 && orientation <= 8 ? orientation : 1;
}

Picture Oriented(Picture stored, int orientation) {
  if (orientation <= 1) return stored;
  const int width = stored.width();
  const int height = stored.height();
  const bool swaps = SwapsSides(orientation);
  Picture shown(swaps ? height : width, swaps ? width : height,
                swaps ? stored.original_height() : stored.original_width(),
                swaps ? stored.original_width() : stored.original_height(), stored.scale());
  // Where the stored pixel (0, 0) is shown, and how far apart its neighbours are, in bytes.
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  const bool from_below =
      orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  uint8_t* const origin = shown.row(from_below ? shown.height() - 1 : 0) +
                          (from_right ? (shown.width() - 1) * Picture::kChannels : 0);
  const ptrdiff_t along = from_right ? -Picture::kChannels : Picture::kChannels;
  const auto stride = static_cast<ptrdiff_t>(shown.stride());
  const ptrdiff_t down = from_below ? -stride : stride;
  const ptrdiff_t step_x = swaps ? down : along;
  const ptrdiff_t step_y = swaps ? along : down;
  // In squares, so that what is written lies close together either way.
  constexpr int kSquare = 32;
  for (int y0 = 0; y0 < height; y0 += kSquare) {
    for (int x0 = 0; x0 < width; x0 += kSquare) {
      for (int y = y0; y < std::min(y0 + kSquare, height); ++y) {
        const uint8_t* from = stored.row(y) + x0 * Picture::kChannels;
        uint8_t* to = origin + y * step_y + x0 * step_x;
        for (int x = x0; x < std::min(x0 + kSquare, width); ++x) {
          to[0] = from[0];
          to[1] = from[1];
          to[2] = from[2];
          from += Picture::kChannels;
          to += step_x;
        }
      }
    }
  }
  return shown;
}

}  // namespace millrace
