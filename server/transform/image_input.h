// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "server/inference/input_transform.h"
#include "server/transform/image_transform.h"

namespace millrace {

// An input of a model for which clients send pictures: files as BYTES elements, one for each row,
// or raw pixels as BYTES elements or a UINT8 tensor. The request's parameters may name the format
// (millrace_image_format) and the size of raw ones (millrace_image_width and _height), the same for
// all rows. Answers tell where each picture lies in its row; see PictureGeometry.
class ImageInput final : public InputTransform {
 public:
  // REQUIRES: CheckImageTransform(transform) is OK.
  explicit ImageInput(ImageTransform transform);

  DataType wire_data_type() const override { return DataType::kBytes; }
  const Shape& wire_dims() const override { return wire_dims_; }

  // Reads the pictures' headers; they are decoded by Prepare().
  absl::StatusOr<std::unique_ptr<TransformedInput>> Take(const InputTensor& input,
                                                         const Parameters& parameters,
                                                         bool batched) const override;

 private:
  const std::shared_ptr<const ImageTransform> transform_;
  const Shape wire_dims_ = {1};
};

}  // namespace millrace
