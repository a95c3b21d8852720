// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Writes to its standard output what a transform makes of pictures, for comparison with other
// programs. For each line of its standard input,
//   FILE FIELD=VALUE …
// the row's bytes; or, where the picture is refused, nothing but a message on standard error and an
// exit code of 1.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "server/base/check.h"
#include "server/transform/picture_decoder.h"
#include "server/transform/row_writer.h"

namespace millrace {
namespace {

using Fields = std::map<std::string, std::string>;

std::array<float, 3> Three(const std::string& text) {
  std::array<float, 3> values;
  std::istringstream stream(text);
  for (float& value : values) {
    stream >> value;
    stream.ignore();
  }
  return values;
}

ImageTransform TransformOf(Fields fields) {
  ImageTransform transform;
  transform.accepted = {PictureFormat::kJpeg, PictureFormat::kPng, PictureFormat::kWebp,
                        PictureFormat::kRgb,  PictureFormat::kBgr, PictureFormat::kGray,
                        PictureFormat::kNv12, PictureFormat::kI420};
  const std::map<std::string, Fit> fits = {{"STRETCH", Fit::kStretch},
                                           {"LETTERBOX", Fit::kLetterbox},
                                           {"CENTER_CROP", Fit::kCenterCrop}};
  const std::map<std::string, Interpolation> interpolations = {
      {"BILINEAR", Interpolation::kBilinear},
      {"AREA", Interpolation::kArea},
      {"NEAREST", Interpolation::kNearest}};
  const std::map<std::string, ColorOrder> orders = {
      {"RGB", ColorOrder::kRgb}, {"BGR", ColorOrder::kBgr}, {"GRAY", ColorOrder::kGray}};
  const std::map<std::string, Layout> layouts = {{"NCHW", Layout::kNchw}, {"NHWC", Layout::kNhwc}};
  transform.width = std::stoi(fields.at("width"));
  transform.height = std::stoi(fields.at("height"));
  if (fields.count("fit") != 0) transform.fit = fits.at(fields["fit"]);
  if (fields.count("shorter_side") != 0) transform.shorter_side = std::stoi(fields["shorter_side"]);
  if (fields.count("fill") != 0) transform.fill = std::stoi(fields["fill"]);
  if (fields.count("interpolation") != 0) {
    transform.interpolation = interpolations.at(fields["interpolation"]);
  }
  if (fields.count("order") != 0) transform.color_order = orders.at(fields["order"]);
  if (fields.count("layout") != 0) transform.layout = layouts.at(fields["layout"]);
  if (fields.count("type") != 0) transform.data_type = DataTypeFromWireName(fields["type"]).value();
  if (fields.count("scale") != 0) transform.scale = std::stof(fields["scale"]);
  if (fields.count("mean") != 0) transform.mean = Three(fields["mean"]);
  if (fields.count("std") != 0) transform.std = Three(fields["std"]);
  if (fields.count("scaled") != 0) transform.scaled_decoding = fields["scaled"] == "1";
  return transform;
}

PictureEncoding EncodingOf(Fields fields) {
  PictureEncoding encoding;
  if (fields.count("format") != 0)
    encoding.format = PictureFormatFromName(fields["format"]).value();
  if (fields.count("raw_width") != 0) encoding.width = std::stoi(fields["raw_width"]);
  if (fields.count("raw_height") != 0) encoding.height = std::stoi(fields["raw_height"]);
  return encoding;
}

absl::Status Transform(const std::string& line, PictureDecoder& decoder) {
  std::istringstream words(line);
  std::string path;
  words >> path;
  Fields fields;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    fields[word.substr(0, equals)] = word.substr(equals + 1);
  }
  const ImageTransform transform = TransformOf(fields);
  if (absl::Status status = CheckImageTransform(transform); !status.ok()) return status;
  std::ifstream stream(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(stream), {}};
  const Payload payload({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
  const auto picture = decoder.Decode(payload, EncodingOf(fields), transform);
  if (!picture.ok()) return picture.status();
  std::vector<std::byte> row(RowBytes(transform));
  WriteRow(*picture, transform, absl::MakeSpan(row));
  MILLRACE_CHECK(std::fwrite(row.data(), 1, row.size(), stdout) == row.size(),
                 "It can be written.");
  return absl::OkStatus();
}

}  // namespace
}  // namespace millrace

int main() {
  millrace::PictureDecoder decoder;
  for (std::string line; std::getline(std::cin, line);) {
    if (const absl::Status status = millrace::Transform(line, decoder); !status.ok()) {
      std::cerr << line << ": " << status.message() << "\n";
      return 1;
    }
  }
}
