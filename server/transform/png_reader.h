// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "server/inference/payload.h"
#include "server/transform/picture.h"
#include "server/transform/picture_header.h"

namespace millrace {

// Reads one PNG with libpng, which has nothing to keep for the next. Thread-compatible.
class PngReader {
 public:
  // `payload` is kept, and read in its pieces.
  explicit PngReader(const Payload& payload);
  ~PngReader();
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  // Reads as far as the first pixels. Without scratch_bytes. INVALID_ARGUMENT with libpng's reason.
  // Call it once.
  absl::StatusOr<PictureHeader> ReadHeader();

  // The most bytes that Decode() will take besides its Picture. REQUIRES: after ReadHeader().
  size_t ScratchBytes() const;

  // Decodes what ReadHeader() began, as stored. Of 16 bits the upper 8 are taken, alpha and gamma
  // are dropped, palettes and grey become RGB. INVALID_ARGUMENT where the data is cut off or
  // corrupt.
  absl::StatusOr<Picture> Decode();

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace millrace
