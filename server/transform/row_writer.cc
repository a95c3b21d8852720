// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/row_writer.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "server/base/check.h"
#include "server/transform/axis_filter.h"
#include "server/transform/picture_geometry.h"

namespace millrace {
namespace {

// The pixels of one axis of the row that the picture takes: [begin, end).
struct Extent {
  int begin;
  int end;
  int count() const { return end - begin; }
};

Extent ExtentOf(int64_t offset, int64_t resized, int side) {
  return {static_cast<int>(std::max<int64_t>(0, offset)),
          static_cast<int>(std::min<int64_t>(side, offset + resized))};
}

class RowWriter {
 public:
  RowWriter(const Picture& picture, const ImageTransform& transform, const RowKernels& kernels)
      : picture_(picture),
        transform_(transform),
        kernels_(kernels),
        geometry_(GeometryOf(transform, picture.original_width(), picture.original_height())),
        across_(ExtentOf(geometry_.offset_x, geometry_.resized_width, transform.width)),
        down_(ExtentOf(geometry_.offset_y, geometry_.resized_height, transform.height)) {
    for (size_t c = 0; c < 3; ++c) {
      factors_[c] = static_cast<float>(double{transform.scale} / transform.std[c]);
      biases_[c] = static_cast<float>(-double{transform.mean[c]} / transform.std[c]);
    }
  }

  void Write(std::byte* row) {
    const auto width = static_cast<size_t>(transform_.width);
    const bool whole = picture_.scale() == 1 && geometry_.resized_width == picture_.width() &&
                       geometry_.resized_height == picture_.height();
    if (!whole) MakeFilters();
    lines_ = std::make_unique_for_overwrite<float[]>(6 * width + samples_across_ * 3 + 1);
    float* const planes = lines_.get();
    float* const border = planes + 3 * width;
    std::fill_n(planes, 6 * width, static_cast<float>(transform_.fill));
    mixed_ = border + 3 * width;
    mixed_[samples_across_ * 3] = 0;  // Read with the last pixel.

    for (int y = 0; y < transform_.height; ++y) {
      if (y < down_.begin || y >= down_.end) {
        Store(border, y, row);
        continue;
      }
      const std::array<float*, 3> into = {planes + across_.begin, planes + width + across_.begin,
                                          planes + 2 * width + across_.begin};
      if (whole) {
        Copy(y, into.data());
      } else {
        Resample(y - down_.begin, into.data());
      }
      if (Channels(transform_) == 1) {
        kernels_.mix_gray(into.data(), static_cast<size_t>(across_.count()));
      }
      Store(planes, y, row);
    }
  }

 private:
  void MakeFilters() {
    const double scale = picture_.scale();
    columns_ = MakeAxisFilter(transform_.interpolation, picture_.width(), geometry_.width * scale,
                              geometry_.resized_width, across_.begin - geometry_.offset_x,
                              across_.count());
    rows_ =
        MakeAxisFilter(transform_.interpolation, picture_.height(), geometry_.height * scale,
                       geometry_.resized_height, down_.begin - geometry_.offset_y, down_.count());
    // A crop reads only some of the columns.
    const auto [least, most] = std::minmax_element(columns_.first.begin(), columns_.first.end());
    first_column_ = *least;
    samples_across_ = static_cast<size_t>(*most + columns_.taps - *least);
    for (int& first : columns_.first) first -= first_column_;
    taken_.resize(static_cast<size_t>(rows_.taps));
  }

  // Takes row `y` of the row as it is in the picture.
  void Copy(int y, float* const* planes) {
    const uint8_t* const from = picture_.row(static_cast<int>(y - geometry_.offset_y)) +
                                (across_.begin - geometry_.offset_x) * Picture::kChannels;
    kernels_.split(from, static_cast<size_t>(across_.count()), planes);
  }

  // Makes the picture's row `y`, of those that are in the row: rows first, of which there are more,
  // and closer together, than of columns.
  void Resample(int y, float* const* planes) {
    const auto at = static_cast<size_t>(y);
    for (size_t k = 0; k < taken_.size(); ++k) {
      taken_[k] =
          picture_.row(rows_.first[at] + static_cast<int>(k)) + first_column_ * Picture::kChannels;
    }
    kernels_.mix_rows(taken_.data(), &rows_.weights[at * taken_.size()], rows_.taps,
                      samples_across_ * Picture::kChannels, mixed_);
    kernels_.mix_columns(mixed_, columns_.first.data(), columns_.weights.data(), columns_.taps,
                         static_cast<size_t>(across_.count()), planes);
  }

  // Writes three planes, one after the other, as line `y` of the row.
  void Store(const float* planes, int y, std::byte* row) const {
    const auto width = static_cast<size_t>(transform_.width);
    const auto line = static_cast<size_t>(y);
    const auto channels = static_cast<size_t>(Channels(transform_));
    const size_t element = ElementSize(transform_.data_type);
    std::array<const float*, 3> in_order = {planes, planes + width, planes + 2 * width};
    if (transform_.color_order == ColorOrder::kBgr) std::swap(in_order[0], in_order[2]);
    if (transform_.layout == Layout::kNhwc) {
      kernels_.store(in_order.data(), factors_.data(), biases_.data(), static_cast<int>(channels),
                     width, transform_.data_type, row + line * width * channels * element);
      return;
    }
    const size_t plane_bytes = width * static_cast<size_t>(transform_.height) * element;
    for (size_t c = 0; c < channels; ++c) {
      kernels_.store(&in_order[c], &factors_[c], &biases_[c], 1, width, transform_.data_type,
                     row + c * plane_bytes + line * width * element);
    }
  }

  const Picture& picture_;
  const ImageTransform& transform_;
  const RowKernels& kernels_;
  const PictureGeometry geometry_;
  const Extent across_;
  const Extent down_;
  std::array<float, 3> factors_;
  std::array<float, 3> biases_;

  AxisFilter columns_;
  AxisFilter rows_;
  int first_column_ = 0;
  size_t samples_across_ = 0;
  std::vector<const uint8_t*> taken_;
  std::unique_ptr<float[]> lines_;  // Planes of a line, those of the border, and `mixed_`.
  float* mixed_ = nullptr;          // A line of the picture's pixels.
};

}  // namespace

void WriteRow(const Picture& picture, const ImageTransform& transform, absl::Span<std::byte> row,
              const RowKernels& kernels) {
  MILLRACE_CHECK(row.size() == RowBytes(transform), "A row has the transform's size.");
  RowWriter(picture, transform, kernels).Write(row.data());
}

}  // namespace millrace
