// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/picture_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "server/transform/row_writer.h"
#include "tests/fakes/picture_files.h"
#include "tests/fakes/seed.h"

namespace millrace {
namespace {

using testing::HasSubstr;

using File = std::vector<uint8_t>;

Payload PayloadOf(const File& file) {
  return Payload({reinterpret_cast<const std::byte*>(file.data()), file.size()});
}

Payload InPiecesOf(const File& file, size_t size) {
  Payload payload;
  const auto bytes = PayloadOf(file).pieces()[0];
  for (size_t i = 0; i < bytes.size(); i += size) payload.Append(bytes.subspan(i, size));
  return payload;
}

// Accepts everything, and decodes whole pictures.
ImageTransform Whole() {
  ImageTransform transform;
  transform.width = transform.height = 8;
  transform.scaled_decoding = false;
  for (const auto format : {PictureFormat::kRgb, PictureFormat::kBgr, PictureFormat::kGray,
                            PictureFormat::kNv12, PictureFormat::kI420}) {
    transform.accepted.push_back(format);
  }
  return transform;
}

std::string MessageOf(const Payload& payload, const PictureEncoding& encoding,
                      const ImageTransform& transform) {
  PictureDecoder decoder;
  const auto inspected = InspectPicture(payload, encoding, transform);
  const auto decoded = decoder.Decode(payload, encoding, transform);
  EXPECT_EQ(inspected.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(inspected.status(), decoded.status());
  return std::string(inspected.status().message());
}

constexpr int kWidth = 19;
constexpr int kHeight = 13;

struct Sample {
  std::string name;
  File file;
};

// A small one of each kind.
std::vector<Sample> Samples() {
  const File rgb = NaturalPixels(kWidth, kHeight);
  std::vector<Sample> samples;
  samples.push_back({"JPEG", EncodeJpeg(rgb, kWidth, kHeight)});
  samples.push_back({"progressive JPEG", EncodeJpeg(rgb, kWidth, kHeight, {.progressive = true})});
  samples.push_back({"grey JPEG", EncodeJpeg(rgb, kWidth, kHeight, {.gray = true})});
  samples.push_back({"turned JPEG", EncodeJpeg(rgb, kWidth, kHeight, {.orientation = 1})});
  samples.push_back({"PNG", EncodePng(rgb, kWidth, kHeight)});
  samples.push_back({"interlaced PNG", EncodePng(rgb, kWidth, kHeight, true)});
  samples.push_back({"lossy WebP", EncodeWebp(rgb, kWidth, kHeight, false)});
  samples.push_back({"lossless WebP", EncodeWebp(rgb, kWidth, kHeight, true)});
  return samples;
}

TEST(PictureDecoder, EveryFormatIsDecoded) {
  const File rgb = NaturalPixels(kWidth, kHeight);
  PictureDecoder decoder;
  for (const auto& [name, file] : Samples()) {
    SCOPED_TRACE(name);
    const auto header = InspectPicture(PayloadOf(file), {}, Whole());
    ASSERT_TRUE(header.ok()) << header.status();
    EXPECT_EQ(header->width, kWidth);
    EXPECT_EQ(header->height, kHeight);
    EXPECT_EQ(header->stored_width, kWidth);
    EXPECT_EQ(header->stored_height, kHeight);
    EXPECT_EQ(header->orientation, 1);
    EXPECT_GT(header->scratch_bytes, 3 * kWidth * kHeight);
    EXPECT_THAT(name, HasSubstr(header->format == PictureFormat::kWebp
                                    ? "WebP"
                                    : std::string(PictureFormatName(header->format))));
    const auto picture = decoder.Decode(PayloadOf(file), {}, Whole());
    ASSERT_TRUE(picture.ok()) << picture.status();
    ASSERT_EQ(picture->width(), kWidth);
    ASSERT_EQ(picture->height(), kHeight);
    const bool exact = name == "PNG" || name == "interlaced PNG" || name == "lossless WebP";
    double apart = 0;
    for (size_t i = 0; i < rgb.size(); ++i) {
      int expected = rgb[i];
      if (name == "grey JPEG") {
        const size_t pixel = i / 3 * 3;
        expected = static_cast<int>(0.299 * rgb[pixel] + 0.587 * rgb[pixel + 1] +
                                    0.114 * rgb[pixel + 2] + 0.5);
      }
      apart += std::abs(picture->row(0)[i] - expected);
    }
    apart /= static_cast<double>(rgb.size());
    EXPECT_LE(apart, exact ? 0 : 12);
  }
}

TEST(PictureDecoder, JpegIsThatOfLibjpegAloneToTheBit) {
  PictureDecoder decoder;
  for (const bool progressive : {false, true}) {
    const File file =
        EncodeJpeg(NaturalPixels(50, 70), 50, 70, {.quality = 90, .progressive = progressive});
    const auto picture = decoder.Decode(PayloadOf(file), {}, Whole());
    ASSERT_TRUE(picture.ok()) << picture.status();
    const File expected = DecodeJpegPlainly(file);
    ASSERT_EQ(picture->size_bytes(), expected.size());
    EXPECT_EQ(std::memcmp(picture->row(0), expected.data(), expected.size()), 0);
  }
}

TEST(PictureDecoder, BytesMayComeInPieces) {
  PictureDecoder decoder;
  std::vector<std::pair<Sample, PictureEncoding>> cases;
  for (Sample& sample : Samples()) cases.push_back({std::move(sample), {}});
  const File raw = NaturalPixels(16, 8);
  const auto first = [&](size_t size) {
    return File(raw.begin(), raw.begin() + static_cast<ptrdiff_t>(size));
  };
  cases.push_back({{"RGB", raw}, {PictureFormat::kRgb, 16, 8}});
  cases.push_back({{"BGR", raw}, {PictureFormat::kBgr, 16, 8}});
  cases.push_back({{"GRAY", first(128)}, {PictureFormat::kGray, 16, 8}});
  cases.push_back({{"NV12", first(192)}, {PictureFormat::kNv12, 16, 8}});
  cases.push_back({{"I420", first(192)}, {PictureFormat::kI420, 16, 8}});
  for (const auto& [sample, encoding] : cases) {
    const auto whole = decoder.Decode(PayloadOf(sample.file), encoding, Whole());
    ASSERT_TRUE(whole.ok()) << sample.name << ": " << whole.status();
    for (const size_t size : {1, 2, 7, 100}) {
      const Payload payload = InPiecesOf(sample.file, size);
      const auto header = InspectPicture(payload, encoding, Whole());
      ASSERT_TRUE(header.ok()) << sample.name << ": " << header.status();
      EXPECT_EQ(header->width, whole->width());
      const auto picture = decoder.Decode(payload, encoding, Whole());
      ASSERT_TRUE(picture.ok()) << sample.name << ": " << picture.status();
      ASSERT_EQ(picture->size_bytes(), whole->size_bytes());
      EXPECT_EQ(std::memcmp(picture->row(0), whole->row(0), whole->size_bytes()), 0);
    }
  }
}

TEST(PictureDecoder, NoPictureIsMadeOfAPartOfItsBytes) {
  PictureDecoder decoder;
  for (const auto& [name, file] : Samples()) {
    for (size_t size = 0; size < file.size(); ++size) {
      const File part(file.begin(), file.begin() + static_cast<ptrdiff_t>(size));
      const auto picture = decoder.Decode(PayloadOf(part), {}, Whole());
      ASSERT_EQ(picture.status().code(), absl::StatusCode::kInvalidArgument)
          << name << ", " << size << " of " << file.size() << " bytes";
      // The header may be whole; if it isn't, that is said.
      const auto header = InspectPicture(PayloadOf(part), {}, Whole());
      if (!header.ok()) {
        ASSERT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
      }
    }
    ASSERT_TRUE(decoder.Decode(PayloadOf(file), {}, Whole()).ok()) << name;
  }
}

TEST(PictureDecoder, WhateverIsWrongItIsDecodedOrRefused) {
  PictureDecoder decoder;
  std::mt19937_64 random(TestSeed());
  ImageTransform transform = Whole();
  transform.most_pixels = 10'000;
  transform.scaled_decoding = true;
  std::vector<std::byte> row(RowBytes(transform));
  for (const auto& [name, file] : Samples()) {
    for (int round = 0; round < 300; ++round) {
      File changed = file;
      for (int i = 0; i <= round % 3; ++i) {
        changed[random() % changed.size()] ^= static_cast<uint8_t>(1 << random() % 8);
      }
      const auto header = InspectPicture(PayloadOf(changed), {}, transform);
      const auto picture = decoder.Decode(PayloadOf(changed), {}, transform);
      if (picture.ok()) {
        ASSERT_TRUE(header.ok()) << header.status();
        ASSERT_EQ(picture->original_width(), header->width);
        ASSERT_EQ(picture->original_height(), header->height);
        WriteRow(*picture, transform, absl::MakeSpan(row));
      } else {
        ASSERT_EQ(picture.status().code(), absl::StatusCode::kInvalidArgument);
      }
    }
  }
}

TEST(PictureDecoder, DecoderIsAsGoodAsNewAfterABrokenPicture) {
  const File file = EncodeJpeg(NaturalPixels(kWidth, kHeight), kWidth, kHeight);
  const File part(file.begin(), file.end() - 40);
  PictureDecoder decoder;
  EXPECT_FALSE(decoder.Decode(PayloadOf(part), {}, Whole()).ok());
  const auto picture = decoder.Decode(PayloadOf(file), {}, Whole());
  ASSERT_TRUE(picture.ok()) << picture.status();
  const File expected = DecodeJpegPlainly(file);
  EXPECT_EQ(std::memcmp(picture->row(0), expected.data(), expected.size()), 0);
}

TEST(PictureDecoder, BytesAfterAPictureAreIgnored) {
  PictureDecoder decoder;
  for (auto& [name, file] : Samples()) {
    file.insert(file.end(), 100, 0xFF);
    EXPECT_TRUE(decoder.Decode(PayloadOf(file), {}, Whole()).ok()) << name;
  }
}

TEST(PictureDecoder, TooManyPixelsAreRefusedBeforeAnyIsDecoded) {
  ImageTransform transform = Whole();
  transform.most_pixels = kWidth * kHeight - 1;
  for (const auto& [name, file] : Samples()) {
    EXPECT_EQ(MessageOf(PayloadOf(file), {}, transform),
              "a picture of 19x13 came, expected at most 246 pixels")
        << name;
  }
  EXPECT_EQ(MessageOf(PayloadOf(File(247)), {PictureFormat::kGray, 19, 13}, transform),
            "a picture of 19x13 came, expected at most 246 pixels");
  // A header is all that a bomb needs.
  File png = EncodePng(NaturalPixels(1, 1), 1, 1);
  for (const size_t i : {16, 20}) png[i] = 0x40;  // 2^30 + 1 to a side. The checksum is wrong,
  EXPECT_THAT(MessageOf(PayloadOf(png), {}, Whole()), HasSubstr("CRC"));  // and comes first.
  File jpeg = EncodeJpeg(NaturalPixels(1, 1), 1, 1);
  const File start_of_frame = {0xFF, 0xC0};
  const auto frame =
      std::search(jpeg.begin(), jpeg.end(), start_of_frame.begin(), start_of_frame.end());
  std::fill_n(frame + 5, 4, uint8_t{0xFD});
  EXPECT_THAT(MessageOf(PayloadOf(jpeg), {}, Whole()),
              HasSubstr("65021x65021 came, expected at most 40000000 pixels"));
}

TEST(PictureDecoder, RefusesWhatItDoesNotTakeAndSaysWhatItDoes) {
  ImageTransform transform = Whole();
  transform.accepted = {PictureFormat::kJpeg, PictureFormat::kNv12};
  const File png = EncodePng(NaturalPixels(2, 2), 2, 2);
  EXPECT_EQ(MessageOf(Payload(), {}, transform), "no bytes came, expected a picture: JPEG, NV12");
  EXPECT_EQ(MessageOf(PayloadOf({'G', 'I', 'F', '8', '9', 'a'}), {}, transform),
            "bytes of an unknown format came, beginning with 474946383961, expected JPEG, NV12");
  EXPECT_EQ(MessageOf(PayloadOf(png), {}, transform),
            "a picture of the format PNG came, expected JPEG, NV12");
  EXPECT_EQ(MessageOf(PayloadOf(png), {PictureFormat::kRgb, 2, 2}, transform),
            "a picture of the format RGB came, expected JPEG, NV12");
  EXPECT_THAT(MessageOf(PayloadOf(png), {PictureFormat::kJpeg}, transform),
              HasSubstr("Not a JPEG file: starts with 0x89 0x50"));
  EXPECT_EQ(MessageOf(PayloadOf(png), {PictureFormat::kNv12, 0, 2}, transform),
            "the size 0x2 came with NV12, expected a width and a height of at least 1");
  EXPECT_EQ(MessageOf(PayloadOf(png), {PictureFormat::kNv12, 2, -2}, transform),
            "the size 2x-2 came with NV12, expected a width and a height of at least 1");
  EXPECT_EQ(MessageOf(PayloadOf(png), {PictureFormat::kNv12, 3, 2}, transform),
            "the size 3x2 came with NV12, expected an even width and height");
  EXPECT_EQ(MessageOf(PayloadOf(File(7)), {PictureFormat::kNv12, 2, 2}, transform),
            "7 bytes came, expected 6 for 2x2 of NV12");
  EXPECT_THAT(MessageOf(PayloadOf(File(7)), {PictureFormat::kNv12, 1 << 30, 1 << 30}, transform),
              HasSubstr("7 bytes came, expected 1729382256910270464 for"));
}

TEST(PictureDecoder, JpegWithTooManyScansIsRefused) {
  const File rgb = NaturalPixels(16, 16);
  PictureDecoder decoder;
  const File most = EncodeJpeg(rgb, 16, 16, {.gray = true, .scan_per_coefficient = true});
  EXPECT_TRUE(decoder.Decode(PayloadOf(most), {}, Whole()).ok());  // 64 of them.
  const File bomb = EncodeJpeg(rgb, 16, 16, {.scan_per_coefficient = true});
  EXPECT_THAT(std::string(decoder.Decode(PayloadOf(bomb), {}, Whole()).status().message()),
              HasSubstr("too many scans"));
}

TEST(PictureDecoder, PictureIsTurnedAsItSaysOfItself) {
  const File rgb = NaturalPixels(40, 24);
  PictureDecoder decoder;
  const auto upright = decoder.Decode(PayloadOf(EncodeJpeg(rgb, 40, 24)), {}, Whole());
  const File file = EncodeJpeg(rgb, 40, 24, {.orientation = 6});  // A quarter, clockwise.
  const auto header = InspectPicture(PayloadOf(file), {}, Whole());
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->orientation, 6);
  EXPECT_EQ(header->stored_width, 40);
  EXPECT_EQ(header->width, 24);
  EXPECT_EQ(header->height, 40);
  EXPECT_GT(header->scratch_bytes, 2 * 3 * 40 * 24);
  const auto turned = decoder.Decode(PayloadOf(file), {}, Whole());
  ASSERT_TRUE(turned.ok()) << turned.status();
  ASSERT_EQ(turned->width(), 24);
  for (int y = 0; y < 40; ++y) {
    for (int x = 0; x < 24; ++x) {
      ASSERT_EQ(std::memcmp(turned->row(y) + 3 * x, upright->row(23 - x) + 3 * y, 3), 0);
    }
  }
}

TEST(PictureDecoder, LargeJpegIsDecodedAtAFraction) {
  const File file = EncodeJpeg(NaturalPixels(161, 90), 161, 90);
  ImageTransform transform = Whole();
  transform.scaled_decoding = true;
  transform.width = transform.height = 40;
  transform.fit = Fit::kLetterbox;
  PictureDecoder decoder;
  const auto picture = decoder.Decode(PayloadOf(file), {}, transform);
  ASSERT_TRUE(picture.ok()) << picture.status();
  EXPECT_EQ(picture->scale(), 0.25);
  EXPECT_EQ(picture->width(), 41);  // 40.25
  EXPECT_EQ(picture->height(), 23);
  EXPECT_EQ(picture->original_width(), 161);
  EXPECT_EQ(picture->original_height(), 90);
  EXPECT_LT(InspectPicture(PayloadOf(file), {}, transform)->scratch_bytes,
            InspectPicture(PayloadOf(file), {}, Whole())->scratch_bytes);
}

// The published matrix, in floating point: 8-bit BT.601 of limited range.
TEST(PictureDecoder, RawColoursAreConvertedByTheirStandard) {
  constexpr int kSide = 16;
  File nv12(kSide * kSide * 3 / 2);
  std::mt19937 random(7);
  for (uint8_t& byte : nv12) byte = static_cast<uint8_t>(random());
  File i420(nv12.begin(), nv12.begin() + kSide * kSide);
  for (const size_t plane : {0, 1}) {
    for (size_t i = 0; i < kSide * kSide / 4; ++i) {
      i420.push_back(nv12[kSide * kSide + 2 * i + plane]);
    }
  }
  PictureDecoder decoder;
  const auto one = decoder.Decode(PayloadOf(nv12), {PictureFormat::kNv12, kSide, kSide}, Whole());
  const auto other = decoder.Decode(PayloadOf(i420), {PictureFormat::kI420, kSide, kSide}, Whole());
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_EQ(std::memcmp(one->row(0), other->row(0), one->size_bytes()), 0);
  for (size_t y = 0; y < kSide; ++y) {
    for (size_t x = 0; x < kSide; ++x) {
      const double light = 1.164 * std::max(0, nv12[y * kSide + x] - 16);
      const size_t chroma = kSide * kSide + y / 2 * kSide + x / 2 * 2;
      const double u = nv12[chroma] - 128.0;
      const double v = nv12[chroma + 1] - 128.0;
      const double rgb[] = {light + 1.596 * v, light - 0.813 * v - 0.391 * u, light + 2.018 * u};
      for (size_t c = 0; c < 3; ++c) {
        EXPECT_NEAR(one->row(static_cast<int>(y))[3 * x + c], std::clamp(rgb[c], 0.0, 255.0), 1);
      }
    }
  }
}

TEST(PictureDecoder, RawPixelsAreTakenInTheirOrder) {
  PictureDecoder decoder;
  const auto pixels = [&](const File& file, PictureFormat format) {
    const auto picture = decoder.Decode(PayloadOf(file), {format, 2, 1}, Whole());
    EXPECT_TRUE(picture.ok()) << picture.status();
    return File(picture->row(0), picture->row(0) + 6);
  };
  EXPECT_EQ(pixels({1, 2, 3, 4, 5, 6}, PictureFormat::kRgb), (File{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(pixels({1, 2, 3, 4, 5, 6}, PictureFormat::kBgr), (File{3, 2, 1, 6, 5, 4}));
  EXPECT_EQ(pixels({7, 9}, PictureFormat::kGray), (File{7, 7, 7, 9, 9, 9}));
}

}  // namespace
}  // namespace millrace
