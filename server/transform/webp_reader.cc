// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/webp_reader.h"

#include <webp/decode.h>
#include <webp/demux.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/transform/orientation.h"

namespace millrace {
namespace {

absl::Status Broken() { return absl::InvalidArgumentError("the WebP is corrupt or cut off"); }

}  // namespace

struct WebpReader::State {
  ~State() { WebPDemuxDelete(demuxer); }

  WebPData data = {};
  WebPDemuxer* demuxer = nullptr;
  WebPBitstreamFeatures features = {};
};

WebpReader::WebpReader(absl::Span<const std::byte> bytes) : state_(std::make_unique<State>()) {
  state_->data = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

WebpReader::~WebpReader() = default;

absl::StatusOr<PictureHeader> WebpReader::ReadHeader() {
  State& s = *state_;
  s.demuxer = WebPDemux(&s.data);
  if (s.demuxer == nullptr) return Broken();
  const uint32_t flags = WebPDemuxGetI(s.demuxer, WEBP_FF_FORMAT_FLAGS);
  if ((flags & ANIMATION_FLAG) != 0) {
    return absl::InvalidArgumentError("an animated WebP came, expected a still picture");
  }
  if (WebPGetFeatures(s.data.bytes, s.data.size, &s.features) != VP8_STATUS_OK) return Broken();
  PictureHeader header;
  header.format = PictureFormat::kWebp;
  header.stored_width = static_cast<int>(WebPDemuxGetI(s.demuxer, WEBP_FF_CANVAS_WIDTH));
  header.stored_height = static_cast<int>(WebPDemuxGetI(s.demuxer, WEBP_FF_CANVAS_HEIGHT));
  WebPChunkIterator chunk;
  if ((flags & EXIF_FLAG) != 0 && WebPDemuxGetChunk(s.demuxer, "EXIF", 1, &chunk) != 0) {
    header.orientation =
        ReadOrientation({reinterpret_cast<const std::byte*>(chunk.chunk.bytes), chunk.chunk.size});
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  header.width = header.stored_width;
  header.height = header.stored_height;
  if (SwapsSides(header.orientation)) std::swap(header.width, header.height);
  return header;
}

size_t WebpReader::ScratchBytes() const {
  const WebPBitstreamFeatures& features = state_->features;
  const auto width = static_cast<size_t>(features.width);
  const size_t pixels = width * static_cast<size_t>(features.height);
  // What is lossless is decoded to 4 bytes per pixel; a lossy picture's alpha is, and becomes a
  // plane, twice. What is lossy needs a few lines.
  constexpr int kLossless = 2;
  const size_t per_pixel = features.format == kLossless ? 4 : features.has_alpha != 0 ? 7 : 0;
  return per_pixel * pixels + 256 * width + (size_t{1} << 18);
}

absl::StatusOr<Picture> WebpReader::Decode() {
  State& s = *state_;
  Picture picture(static_cast<int>(WebPDemuxGetI(s.demuxer, WEBP_FF_CANVAS_WIDTH)),
                  static_cast<int>(WebPDemuxGetI(s.demuxer, WEBP_FF_CANVAS_HEIGHT)));
  WebPDecoderConfig config;
  MILLRACE_CHECK(WebPInitDecoderConfig(&config) != 0,
                 "libwebp must be the one that was compiled with.");
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {picture.row(0), static_cast<int>(picture.stride()), picture.size_bytes()};
  const VP8StatusCode code = WebPDecode(s.data.bytes, s.data.size, &config);
  // The frame may have another size than the canvas says.
  const bool whole =
      config.input.width == picture.width() && config.input.height == picture.height();
  WebPFreeDecBuffer(&config.output);
  if (code != VP8_STATUS_OK || !whole) return Broken();
  return picture;
}

}  // namespace millrace
