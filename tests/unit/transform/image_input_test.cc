// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/image_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/fakes/picture_files.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

ImageTransform Stretched() {
  ImageTransform transform;
  transform.width = 8;
  transform.height = 4;
  transform.layout = Layout::kNhwc;
  transform.data_type = DataType::kUint8;
  transform.interpolation = Interpolation::kNearest;
  transform.accepted = {PictureFormat::kJpeg, PictureFormat::kPng, PictureFormat::kRgb,
                        PictureFormat::kGray, PictureFormat::kNv12};
  return transform;
}

// Pixels that tell one picture of 8 x 4 from another.
Bytes Pixels(int seed) {
  Bytes pixels(8 * 4 * 3);
  for (size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<uint8_t>(i * 7 + static_cast<size_t>(seed) * 31);
  }
  return pixels;
}

class ImageInputTest : public testing::Test {
 protected:
  // An input of these bytes, in pieces of `piece` bytes.
  InputTensor Input(std::string data_type, Shape shape, Bytes bytes, size_t piece = SIZE_MAX) {
    bytes_ = std::make_unique<Bytes>(std::move(bytes));
    InputTensor input;
    input.name = "IMAGE";
    input.data_type = std::move(data_type);
    input.shape = std::move(shape);
    const auto all =
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes_->data()), bytes_->size());
    for (size_t at = 0; at < all.size(); at += std::min(piece, all.size() - at)) {
      input.payload.Append(all.subspan(at, piece));
    }
    return input;
  }

  // Each element behind its length.
  static Bytes Elements(const std::vector<Bytes>& elements) {
    Bytes bytes;
    for (const Bytes& element : elements) {
      const auto length = static_cast<uint32_t>(element.size());
      const auto* const raw = reinterpret_cast<const uint8_t*>(&length);
      bytes.insert(bytes.end(), raw, raw + sizeof(length));
      bytes.insert(bytes.end(), element.begin(), element.end());
    }
    return bytes;
  }

  std::string ErrorOf(const InputTensor& input, const Parameters& parameters = {},
                      bool batched = true) {
    const auto taken = ImageInput(Stretched()).Take(input, parameters, batched);
    EXPECT_EQ(taken.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(taken.status().message());
  }

  // What is made of every row.
  std::vector<Bytes> RowsOf(const InputTensor& input, const Parameters& parameters = {},
                            bool batched = true) {
    const auto taken = ImageInput(Stretched()).Take(input, parameters, batched);
    EXPECT_TRUE(taken.ok()) << taken.status();
    std::vector<Bytes> rows;
    for (int64_t row = 0; taken.ok() && row < (*taken)->rows(); ++row) {
      EXPECT_TRUE((*taken)->Prepare(row).ok());
      Bytes& bytes = rows.emplace_back(8 * 4 * 3);
      (*taken)->Write(row,
                      absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size()));
    }
    return rows;
  }

  std::unique_ptr<Bytes> bytes_;
};

TEST_F(ImageInputTest, EveryElementOfBytesIsARow) {
  const Bytes elements = Elements({EncodePng(Pixels(1), 8, 4), EncodePng(Pixels(2), 8, 4)});
  for (const Shape& shape : {Shape{2, 1}, Shape{2}}) {
    for (const size_t piece : {size_t{1}, size_t{3}, elements.size()}) {
      EXPECT_THAT(RowsOf(Input("BYTES", shape, elements, piece)), ElementsAre(Pixels(1), Pixels(2)))
          << ToString(shape) << " in pieces of " << piece;
    }
  }
  EXPECT_THAT(RowsOf(Input("BYTES", {1}, Elements({EncodePng(Pixels(3), 8, 4)})), {}, false),
              ElementsAre(Pixels(3)));
}

TEST_F(ImageInputTest, RawPixelsComeAsATensorOrAsElements) {
  Bytes both = Pixels(1);
  const Bytes second = Pixels(2);
  both.insert(both.end(), second.begin(), second.end());
  EXPECT_THAT(RowsOf(Input("UINT8", {2, 4, 8, 3}, both, 5)), ElementsAre(Pixels(1), Pixels(2)));
  EXPECT_THAT(RowsOf(Input("UINT8", {4, 8, 3}, Pixels(1)), {}, false), ElementsAre(Pixels(1)));
  const Parameters rgb = {{"millrace_image_format", std::string("RGB")},
                          {"millrace_image_width", int64_t{8}},
                          {"millrace_image_height", int64_t{4}}};
  EXPECT_THAT(RowsOf(Input("BYTES", {1, 1}, Elements({Pixels(4)})), rgb), ElementsAre(Pixels(4)));
  const Bytes gray(4 * 8, 77);
  EXPECT_THAT(RowsOf(Input("UINT8", {1, 4, 8}, gray)), ElementsAre(Bytes(4 * 8 * 3, 77)));
  const Parameters nv12 = {{"millrace_image_format", std::string("NV12")}};
  Bytes yuv(4 * 8, 235);
  yuv.resize(6 * 8, 128);
  EXPECT_THAT(RowsOf(Input("UINT8", {1, 6, 8}, yuv), nv12), ElementsAre(Bytes(4 * 8 * 3, 255)));
}

TEST_F(ImageInputTest, WhatIsWrongIsNamed) {
  const Bytes one = Elements({EncodePng(Pixels(1), 8, 4)});
  EXPECT_THAT(ErrorOf(Input("FP32", {1, 1}, one)), HasSubstr("data type 'FP32' came"));
  EXPECT_THAT(ErrorOf(Input("BYTES", {1, 2}, one)), HasSubstr("shape [1,2] came, expected [-1,1]"));
  EXPECT_THAT(ErrorOf(Input("BYTES", {}, one)), HasSubstr("expected [-1,1]"));
  EXPECT_THAT(ErrorOf(Input("BYTES", {2, 1}, one)), HasSubstr("element 1 of BYTES goes beyond"));
  EXPECT_THAT(ErrorOf(Input("BYTES", {int64_t{1} << 62, 1}, one)), HasSubstr("are no "));
  EXPECT_THAT(ErrorOf(Input("BYTES", {-1, 1}, one)), HasSubstr("are no -1 elements"));
  Bytes longer = one;
  longer.push_back(0);
  EXPECT_THAT(ErrorOf(Input("BYTES", {1, 1}, longer)), HasSubstr("1 more than the 1 elements"));
  EXPECT_THAT(ErrorOf(Input("BYTES", {2, 1}, Elements({EncodePng(Pixels(1), 8, 4), {1, 2, 3}}))),
              HasSubstr("picture 1: "));
  EXPECT_THAT(ErrorOf(Input("UINT8", {1, 4, 8, 4}, Pixels(1))), HasSubstr("[height,width,3]"));
  EXPECT_THAT(ErrorOf(Input("UINT8", {2, 4, 8, 3}, Pixels(1))), HasSubstr("96 bytes came"));
  EXPECT_THAT(ErrorOf(Input("UINT8", {0, 4, 8, 3}, {})), HasSubstr("has no pixels"));
  EXPECT_THAT(ErrorOf(Input("UINT8", {1, -4, 8, 3}, Pixels(1))), HasSubstr("bytes came"));
  EXPECT_THAT(
      ErrorOf(Input("BYTES", {1, 1}, one), {{"millrace_image_format", std::string("TIFF")}}),
      HasSubstr("is 'TIFF', expected the name of a format"));
  EXPECT_THAT(ErrorOf(Input("BYTES", {1, 1}, one), {{"millrace_image_wdith", int64_t{8}}}),
              HasSubstr("'millrace_image_wdith' is not known"));
  EXPECT_THAT(ErrorOf(Input("BYTES", {1, 1}, one), {{"millrace_image_width", int64_t{-8}}}),
              HasSubstr("expected a number of pixels"));
  EXPECT_THAT(ErrorOf(Input("BYTES", Shape(20, 1), one)), HasSubstr("20 dimensions"));
}

TEST_F(ImageInputTest, TornPictureFailsWhenItIsDecoded) {
  Bytes torn = EncodePng(Pixels(1), 8, 4);
  torn.resize(torn.size() - 20);
  const auto taken =
      ImageInput(Stretched()).Take(Input("BYTES", {1, 1}, Elements({torn})), {}, true);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_GT((*taken)->held_bytes(), 0);
  const absl::Status status = (*taken)->Prepare(0);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("picture 0: "));
}

TEST_F(ImageInputTest, AnswerTellsWherePicturesLie) {
  ImageTransform transform = Stretched();
  transform.fit = Fit::kLetterbox;
  const auto annotate = [&](const std::vector<Bytes>& files) {
    const auto taken = ImageInput(transform).Take(
        Input("BYTES", {static_cast<int64_t>(files.size()), 1}, Elements(files)), {}, true);
    EXPECT_TRUE(taken.ok()) << taken.status();
    Parameters parameters;
    if (taken.ok()) (*taken)->Annotate(parameters);
    std::map<std::string, decltype(Parameter::value)> values;
    for (const auto& [name, value] : parameters) values[name] = value;
    return values;
  };
  const Bytes square = EncodePng(Bytes(16 * 16 * 3), 16, 16);
  const Bytes same = EncodePng(Pixels(1), 8, 4);
  auto one = annotate({square});
  EXPECT_EQ(std::get<int64_t>(one["millrace_image_width"]), 16);
  EXPECT_EQ(std::get<double>(one["millrace_image_scale_x"]), 0.25);
  EXPECT_EQ(std::get<int64_t>(one["millrace_image_offset_x"]), 2);
  EXPECT_EQ(std::get<int64_t>(one["millrace_image_offset_y"]), 0);
  auto two = annotate({square, same});
  EXPECT_EQ(std::get<std::string>(two["millrace_image_height"]), "16,4");
  EXPECT_EQ(std::get<std::string>(two["millrace_image_scale_y"]), "0.25,1");
  EXPECT_EQ(std::get<std::string>(two["millrace_image_offset_x"]), "2,0");
}

}  // namespace
}  // namespace millrace
