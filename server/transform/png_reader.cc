// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/png_reader.h"

#include <png.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/transform/guarded_call.h"
#include "server/transform/orientation.h"

namespace millrace {
namespace {

constexpr size_t kMostChunkBytes = 1 << 20;  // Of one that isn't pixels.

}  // namespace

// libpng's, with what it calls back.
struct PngReader::State {
  ~State() { png_destroy_read_struct(&png, &info, nullptr); }

  absl::Status Broken() const {
    return absl::InvalidArgumentError(absl::StrCat(
        "the PNG is corrupt, cut off or of a kind that is not read: ", guarded.message()));
  }

  [[noreturn]] static void OnError(png_structp png, png_const_charp message) {
    static_cast<State*>(png_get_error_ptr(png))->guarded.Fail(message);
  }
  static void OnWarning(png_structp /*png*/, png_const_charp /*message*/) {}
  // libpng may ask for one byte at a time: no search for where it is.
  static void Read(png_structp png, png_bytep into, size_t count) {
    State& s = *static_cast<State*>(png_get_io_ptr(png));
    while (count > 0) {
      if (s.piece.empty()) {
        const size_t pieces = s.payload.pieces().size();
        if (s.next_piece == pieces) s.guarded.Fail("it ends before the picture does");
        s.piece = s.payload.pieces()[s.next_piece++];
      }
      const size_t step = std::min(count, s.piece.size());
      std::memcpy(into, s.piece.data(), step);
      s.piece.remove_prefix(step);
      into += step;
      count -= step;
    }
  }

  png_structp png = nullptr;
  png_infop info = nullptr;
  GuardedCall guarded;
  Payload payload;
  absl::Span<const std::byte> piece;  // What is left of it.
  size_t next_piece = 0;
};

PngReader::PngReader(const Payload& payload) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.payload = payload;
  MILLRACE_CHECK(s.guarded.Run([&s] {
    s.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, State::OnError, State::OnWarning);
    s.info = s.png == nullptr ? nullptr : png_create_info_struct(s.png);
    if (s.info == nullptr) s.guarded.Fail("");
    png_set_read_fn(s.png, &s, State::Read);
    // The caller limits the pixels, and says so better.
    png_set_user_limits(s.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_malloc_max(s.png, kMostChunkBytes);
    // Nothing but the pixels, and how to turn them.
    static constexpr png_byte kExif[] = {'e', 'X', 'I', 'f', 0};
    png_set_keep_unknown_chunks(s.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_set_keep_unknown_chunks(s.png, PNG_HANDLE_CHUNK_AS_DEFAULT, kExif, 1);
  }),
                 "libpng must be the one that was compiled with.");
}

PngReader::~PngReader() = default;

absl::StatusOr<PictureHeader> PngReader::ReadHeader() {
  State& s = *state_;
  png_bytep exif = nullptr;
  png_uint_32 exif_size = 0;
  const bool read = s.guarded.Run([&] {
    png_read_info(s.png, s.info);
    if (png_get_eXIf_1(s.png, s.info, &exif_size, &exif) == 0) exif_size = 0;
  });
  if (!read) return s.Broken();
  PictureHeader header;
  header.format = PictureFormat::kPng;
  header.stored_width = static_cast<int>(png_get_image_width(s.png, s.info));
  header.stored_height = static_cast<int>(png_get_image_height(s.png, s.info));
  if (exif_size > 0) {
    header.orientation = ReadOrientation({reinterpret_cast<const std::byte*>(exif), exif_size});
  }
  header.width = header.stored_width;
  header.height = header.stored_height;
  if (SwapsSides(header.orientation)) std::swap(header.width, header.height);
  return header;
}

size_t PngReader::ScratchBytes() const {
  const size_t width = png_get_image_width(state_->png, state_->info);
  png_bytep exif = nullptr;
  png_uint_32 exif_size = 0;
  if (png_get_eXIf_1(state_->png, state_->info, &exif_size, &exif) == 0) exif_size = 0;
  // Lines of four channels with 16 bits, and inflate's window.
  return 3 * 8 * width + 2 * size_t{exif_size} + (size_t{1} << 17);
}

absl::StatusOr<Picture> PngReader::Decode() {
  State& s = *state_;
  Picture picture(static_cast<int>(png_get_image_width(s.png, s.info)),
                  static_cast<int>(png_get_image_height(s.png, s.info)));
  const bool decoded = s.guarded.Run([&] {
    png_set_expand(s.png);
    png_set_strip_16(s.png);
    png_set_gray_to_rgb(s.png);
    png_set_strip_alpha(s.png);
    const int passes = png_set_interlace_handling(s.png);
    png_read_update_info(s.png, s.info);
    if (png_get_rowbytes(s.png, s.info) != picture.stride()) {
      s.guarded.Fail("libpng makes other lines of it than was asked for");
    }
    for (int pass = 0; pass < passes; ++pass) {
      for (int y = 0; y < picture.height(); ++y) png_read_row(s.png, picture.row(y), nullptr);
    }
    png_read_end(s.png, nullptr);
  });
  if (!decoded) return s.Broken();
  return picture;
}

}  // namespace millrace
