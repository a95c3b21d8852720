// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/jpeg_reader.h"

// jpeglib.h needs what stands before it.
// clang-format off
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/transform/guarded_call.h"
#include "server/transform/orientation.h"

namespace millrace {
namespace {

// The length of a side decoded at `eighths`/8.
int ShownAs(int stored, int eighths) {
  return static_cast<int>((int64_t{stored} * eighths + 7) / 8);
}

// What Pillow makes of inks that Adobe stores inverted, as in x * y / 255, rounded.
void FromInks(const uint8_t* inks, int width, uint8_t* rgb) {
  for (int x = 0; x < width; ++x) {
    const int black = inks[4 * x + 3];
    for (int c = 0; c < 3; ++c) {
      const int product = (255 - inks[4 * x + c]) * black + 128;
      rgb[3 * x + c] = static_cast<uint8_t>(std::max(0, black - ((product + (product >> 8)) >> 8)));
    }
  }
}

}  // namespace

// libjpeg's, with what it calls back, which gets the State by `client_data`.
struct JpegReader::State {
  State();
  ~State() { jpeg_destroy_decompress(&jpeg); }

  absl::Status Broken();

  static State& Of(j_common_ptr jpeg) { return *static_cast<State*>(jpeg->client_data); }
  [[noreturn]] static void OnError(j_common_ptr jpeg);
  static void OnMessage(j_common_ptr jpeg, int level);
  static void OnProgress(j_common_ptr jpeg);
  static boolean NextPiece(j_decompress_ptr jpeg);
  static void Skip(j_decompress_ptr jpeg, long count);

  jpeg_decompress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  jpeg_source_mgr source = {};
  jpeg_progress_mgr progress = {};
  GuardedCall guarded;
  Payload payload;
  size_t next_piece = 0;
  std::vector<uint8_t> inks;  // A line of them.
};

JpegReader::State::State() {
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = OnError;
  errors.emit_message = OnMessage;
  jpeg.client_data = this;
  MILLRACE_CHECK(guarded.Run([this] {
    jpeg_create_decompress(&jpeg);
    jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
  }),
                 "libjpeg must be the one that was compiled with.");
  source.init_source = [](j_decompress_ptr) {};
  source.fill_input_buffer = NextPiece;
  source.skip_input_data = Skip;
  source.resync_to_restart = jpeg_resync_to_restart;
  source.term_source = [](j_decompress_ptr) {};
  jpeg.src = &source;
  progress.progress_monitor = OnProgress;
  jpeg.progress = &progress;
}

absl::Status JpegReader::State::Broken() {
  jpeg_abort_decompress(&jpeg);
  return absl::InvalidArgumentError(absl::StrCat(
      "the JPEG is corrupt, cut off or of a kind that is not read: ", guarded.message()));
}

void JpegReader::State::OnError(j_common_ptr jpeg) {
  char message[JMSG_LENGTH_MAX];
  jpeg->err->format_message(jpeg, message);
  Of(jpeg).guarded.Fail(message);
}

// A warning says that pixels are guessed, but for these.
void JpegReader::State::OnMessage(j_common_ptr jpeg, int level) {
  if (level >= 0) return;
  switch (jpeg->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_ADOBE_XFORM:
    case JWRN_TOO_MUCH_DATA:
      return;
    default:
      OnError(jpeg);
  }
}

void JpegReader::State::OnProgress(j_common_ptr jpeg) {
  if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number > kMostScans) {
    Of(jpeg).guarded.Fail("it has too many scans");
  }
}

boolean JpegReader::State::NextPiece(j_decompress_ptr jpeg) {
  State& s = Of(reinterpret_cast<j_common_ptr>(jpeg));
  if (s.next_piece == s.payload.pieces().size()) s.guarded.Fail("it ends before the picture does");
  const absl::Span<const std::byte> piece = s.payload.pieces()[s.next_piece++];
  s.source.next_input_byte = reinterpret_cast<const JOCTET*>(piece.data());
  s.source.bytes_in_buffer = piece.size();
  return TRUE;
}

void JpegReader::State::Skip(j_decompress_ptr jpeg, long count) {
  jpeg_source_mgr& source = *jpeg->src;
  while (count > 0) {
    if (source.bytes_in_buffer == 0) NextPiece(jpeg);
    const size_t step = std::min(source.bytes_in_buffer, static_cast<size_t>(count));
    source.next_input_byte += step;
    source.bytes_in_buffer -= step;
    count -= static_cast<long>(step);
  }
}

JpegReader::JpegReader() : state_(std::make_unique<State>()) {}
JpegReader::~JpegReader() = default;

absl::StatusOr<PictureHeader> JpegReader::ReadHeader(const Payload& payload) {
  State& s = *state_;
  jpeg_abort_decompress(&s.jpeg);
  s.payload = payload;
  s.next_piece = 0;
  s.source.bytes_in_buffer = 0;
  if (!s.guarded.Run([&s] { jpeg_read_header(&s.jpeg, TRUE); })) {
    return s.Broken();
  }
  PictureHeader header;
  header.format = PictureFormat::kJpeg;
  header.stored_width = static_cast<int>(s.jpeg.image_width);
  header.stored_height = static_cast<int>(s.jpeg.image_height);
  for (auto* marker = s.jpeg.marker_list; marker != nullptr; marker = marker->next) {
    if (marker->data_length >= 6 && std::memcmp(marker->data, "Exif\0", 6) == 0) {
      header.orientation =
          ReadOrientation({reinterpret_cast<const std::byte*>(marker->data), marker->data_length});
      break;
    }
  }
  header.width = header.stored_width;
  header.height = header.stored_height;
  if (SwapsSides(header.orientation)) std::swap(header.width, header.height);
  return header;
}

size_t JpegReader::ScratchBytes() const {
  jpeg_decompress_struct& jpeg = state_->jpeg;
  size_t bytes = size_t{1} << 16;
  for (auto* marker = jpeg.marker_list; marker != nullptr; marker = marker->next) {
    bytes += marker->data_length;
  }
  for (int i = 0; i < jpeg.num_components; ++i) {
    const jpeg_component_info& component = jpeg.comp_info[i];
    const size_t columns = component.width_in_blocks + static_cast<size_t>(component.h_samp_factor);
    const size_t rows = component.height_in_blocks + static_cast<size_t>(component.v_samp_factor);
    // All coefficients where there is more than one scan, else a few lines of samples.
    const size_t blocks = columns * (jpeg_has_multiple_scans(&jpeg) ? rows : 8);
    bytes += blocks * sizeof(JBLOCK);
  }
  return bytes;
}

absl::StatusOr<Picture> JpegReader::Decode(int eighths) {
  State& s = *state_;
  jpeg_decompress_struct& jpeg = s.jpeg;
  const bool inks = jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK;
  jpeg.out_color_space = inks ? JCS_CMYK : JCS_RGB;
  jpeg.dct_method = JDCT_ISLOW;
  jpeg.scale_num = static_cast<unsigned int>(eighths);
  jpeg.scale_denom = 8;
  const auto width = static_cast<int>(jpeg.image_width);
  const auto height = static_cast<int>(jpeg.image_height);
  Picture picture(ShownAs(width, eighths), ShownAs(height, eighths), width, height, eighths / 8.0);
  s.inks.resize(inks ? static_cast<size_t>(picture.width()) * 4 : 0);
  const bool decoded = s.guarded.Run([&] {
    jpeg_start_decompress(&jpeg);
    if (static_cast<int>(jpeg.output_width) != picture.width() ||
        static_cast<int>(jpeg.output_height) != picture.height() ||
        jpeg.output_components != (inks ? 4 : 3)) {
      s.guarded.Fail("libjpeg makes another size of it than was asked for");
    }
    while (jpeg.output_scanline < jpeg.output_height) {
      uint8_t* const row = picture.row(static_cast<int>(jpeg.output_scanline));
      JSAMPROW into = inks ? s.inks.data() : row;
      jpeg_read_scanlines(&jpeg, &into, 1);
      if (inks) FromInks(into, picture.width(), row);
    }
    jpeg_finish_decompress(&jpeg);
  });
  if (!decoded) return s.Broken();
  return picture;
}

}  // namespace millrace
