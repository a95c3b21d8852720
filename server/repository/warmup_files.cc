// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/warmup_files.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/repository/beneath.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

// Of all files of a model together. They stay in memory while the model is served, for a template
// that is to be loaded again.
constexpr size_t kMostBytes = size_t{256} << 20;

// Reads the files of one model into one piece of memory.
class Reader {
 public:
  Reader(const std::string& directory, const ModelSettings& settings)
      : repository_(fs::path(directory).parent_path()),
        folder_(fs::path(directory).filename() / kWarmupFolder),
        settings_(settings) {}

  absl::Status Read(const WarmupSample& sample, const TensorSpec& spec, WarmupInput& input) {
    // Two samples may name one file; its bytes are rows of some sizes only.
    const auto [place, is_new] =
        places_.try_emplace({input.file, spec.name, sample.rows, input.dims});
    if (is_new) {
      MILLRACE_ASSIGN_OR_RETURN(place->second, Append(spec, input, sample.rows));
    }
    input.data_offset = place->second.offset;
    input.data_rows = place->second.rows;
    return absl::OkStatus();
  }

  std::vector<std::byte> TakeData() && { return std::move(data_); }

 private:
  struct Place {
    uint64_t offset = 0;
    int64_t rows = 0;
  };

  absl::StatusOr<Place> Append(const TensorSpec& spec, const WarmupInput& input, int64_t rows) {
    const std::string path = (folder_ / input.file).string();
    const absl::StatusOr<std::string> text =
        ReadBeneath(repository_, path, kMostBytes - std::min(kMostBytes, data_.size()));
    if (absl::IsNotFound(text.status())) {
      return absl::NotFoundError(absl::StrCat(
          repository_, "/", path, ": no such file, but input_data_file in config.pbtxt names it"));
    }
    if (absl::IsOutOfRange(text.status())) {
      return absl::InvalidArgumentError(
          absl::StrCat(text.status().message(), ": a model's warm-up files have at most ",
                       kMostBytes, " bytes together; declare smaller samples"));
    }
    MILLRACE_RETURN_IF_ERROR(text.status());
    absl::StatusOr<Place> place = spec.transform == nullptr ? AppendRows(spec, input, rows, *text)
                                                            : AppendPicture(spec, input, *text);
    if (!place.ok()) return Annotate(place.status(), absl::StrCat(repository_, "/", path));
    return place;
  }

  absl::StatusOr<Place> AppendRows(const TensorSpec& spec, const WarmupInput& input, int64_t rows,
                                   const std::string& text) {
    const size_t row_bytes = RowBytes(spec, input);
    const bool one = text.size() == row_bytes;
    if (!one && text.size() != row_bytes * static_cast<size_t>(rows)) {
      return absl::InvalidArgumentError(absl::StrCat(
          text.size(), " bytes came, expected ", row_bytes, " for a row of ",
          WireName(spec.data_type), " ", ToString(input.dims),
          rows > 1 ? absl::StrCat(", or ", row_bytes * static_cast<size_t>(rows), " for the ", rows,
                                  " rows of the sample's batch_size")
                   : ""));
    }
    const auto* const begin = reinterpret_cast<const std::byte*>(text.data());
    const Place place = {.offset = data_.size(), .rows = one ? 1 : rows};
    data_.insert(data_.end(), begin, begin + text.size());
    return place;
  }

  // What a request with this picture would be.
  absl::StatusOr<Place> AppendPicture(const TensorSpec& spec, const WarmupInput& input,
                                      const std::string& text) {
    const auto size = static_cast<uint32_t>(text.size());  // kMostBytes fits.
    std::string element(reinterpret_cast<const char*>(&size), sizeof(size));
    element += text;
    InputTensor tensor;
    tensor.name = spec.name;
    tensor.data_type = std::string(WireName(DataType::kBytes));
    tensor.shape = spec.wire_dims();
    if (settings_.max_batch_size > 0) tensor.shape.insert(tensor.shape.begin(), 1);
    tensor.payload = Payload({reinterpret_cast<const std::byte*>(element.data()), element.size()});
    MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<TransformedInput> picture,
                              spec.transform->Take(tensor, {}, settings_.max_batch_size > 0));
    MILLRACE_RETURN_IF_ERROR(picture->Prepare(0));
    const Place place = {.offset = data_.size(), .rows = 1};
    data_.resize(data_.size() + RowBytes(spec, input));
    picture->Write(0, absl::MakeSpan(data_).subspan(place.offset));
    return place;
  }

  // That of all of a sample's rows can be counted, too: the config was held to it.
  static size_t RowBytes(const TensorSpec& spec, const WarmupInput& input) {
    return static_cast<size_t>(ElementCount(input.dims).value()) * ElementSize(spec.data_type);
  }

  const std::string repository_;
  const fs::path folder_;  // In it.
  const ModelSettings& settings_;
  std::map<std::tuple<std::string, std::string, int64_t, Shape>, Place> places_;
  std::vector<std::byte> data_;
};

}  // namespace

absl::StatusOr<std::vector<std::byte>> ReadWarmupFiles(const std::string& directory,
                                                       const ModelSettings& settings,
                                                       std::vector<WarmupSample>& samples) {
  Reader reader(directory, settings);
  for (WarmupSample& sample : samples) {
    for (size_t i = 0; i < sample.inputs.size(); ++i) {
      WarmupInput& input = sample.inputs[i];
      if (input.file.empty()) continue;
      if (!sample.declared) {
        // One of another size, like the first that is declared.
        input.data_offset = samples.front().inputs[i].data_offset;
        input.data_rows = samples.front().inputs[i].data_rows;
      } else {
        MILLRACE_RETURN_IF_ERROR(reader.Read(sample, settings.inputs[i], input));
      }
    }
  }
  return std::move(reader).TakeData();
}

}  // namespace millrace
