// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/contact_sheet.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/video/av.h"
#include "client/video/jpeg_encoder.h"

namespace millrace {
inline namespace client {
namespace {

constexpr int kTileWidth = 320;
constexpr int kGap = 4;
constexpr int kJpegQuality = 90;

bool IsPng(const std::string& path) { return absl::EndsWithIgnoreCase(path, ".png"); }

absl::StatusOr<std::string> EncodePng(const Image& image) {
  const AVCodec* codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
  const CodecPtr encoder(avcodec_alloc_context3(codec));
  const FramePtr frame(av_frame_alloc());
  const PacketPtr packet(av_packet_alloc());
  encoder->pix_fmt = AV_PIX_FMT_RGB24;
  encoder->time_base = {1, 1};
  encoder->width = frame->width = image.width;
  encoder->height = frame->height = image.height;
  frame->format = encoder->pix_fmt;
  int error = avcodec_open2(encoder.get(), codec, nullptr);
  if (error >= 0) error = av_frame_get_buffer(frame.get(), 0);
  if (error >= 0) {
    const uint8_t* const planes[] = {reinterpret_cast<const uint8_t*>(image.pixels.data())};
    const int strides[] = {3 * image.width};
    av_image_copy(frame->data, frame->linesize, const_cast<const uint8_t**>(planes), strides,
                  encoder->pix_fmt, image.width, image.height);
    error = avcodec_send_frame(encoder.get(), frame.get());
  }
  if (error >= 0) error = avcodec_receive_packet(encoder.get(), packet.get());
  if (error < 0) return absl::InvalidArgumentError(absl::StrCat("no PNG: ", AvReason(error)));
  return std::string(reinterpret_cast<const char*>(packet->data), packet->size);
}

}  // namespace

absl::Status ContactSheet::CheckName(const std::string& path) {
  for (const char* ending : {".png", ".jpg", ".jpeg"}) {
    if (absl::EndsWithIgnoreCase(path, ending)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", path, "': a contact sheet's name ends with .png or .jpg"));
}

absl::Status ContactSheet::Add(const Image& image) {
  const int height = std::clamp(kTileWidth * image.height / image.width, 1, 4 * kTileWidth);
  auto tile = scaler_.Scale(image, kTileWidth, height);
  if (!tile.ok()) return tile.status();
  tiles_.push_back(*std::move(tile));
  ++offered_;
  if (tiles_.size() == size_t{2} * pictures_) {
    for (size_t i = 1; i < tiles_.size(); ++i) tiles_.erase(tiles_.begin() + i);
    every_ *= 2;
  }
  return absl::OkStatus();
}

Image ContactSheet::Render() const {
  if (tiles_.empty()) return {};
  // As many as wanted, from the first to the last of those that are there.
  const int count = std::min<int>(pictures_, static_cast<int>(tiles_.size()));
  const int columns = static_cast<int>(std::ceil(std::sqrt(count)));
  const int rows = (count + columns - 1) / columns;
  int height = 0;
  for (const Image& tile : tiles_) height = std::max(height, tile.height);
  Image sheet{columns * (kTileWidth + kGap) + kGap, rows * (height + kGap) + kGap};
  sheet.pixels.assign(size_t{3} * sheet.width * sheet.height, '\0');
  for (int i = 0; i < count; ++i) {
    const size_t chosen = count == 1 ? 0 : i * (tiles_.size() - 1) / (count - 1);
    const Image& tile = tiles_[chosen];
    const int left = kGap + i % columns * (kTileWidth + kGap);
    const int top = kGap + i / columns * (height + kGap);
    for (int y = 0; y < tile.height; ++y) {
      sheet.pixels.replace(size_t{3} * ((top + y) * sheet.width + left), size_t{3} * tile.width,
                           tile.pixels, size_t{3} * y * tile.width, size_t{3} * tile.width);
    }
  }
  return sheet;
}

absl::Status ContactSheet::Save(const std::string& path) const {
  const Image sheet = Render();
  if (sheet.pixels.empty()) return absl::OkStatus();
  const auto bytes = IsPng(path) ? EncodePng(sheet) : EncodeJpeg(sheet, kJpegQuality);
  if (!bytes.ok()) return bytes.status();
  std::ofstream file(path, std::ios::binary);
  if (file << *bytes << std::flush) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", path, "' can't be written"));
}

}  // namespace client
}  // namespace millrace
