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

// Reads JPEGs with libjpeg-turbo, one after the other, and keeps its tables between them.
// Thread-compatible.
class JpegReader {
 public:
  JpegReader();
  ~JpegReader();
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  // Reads as far as the first scan. `payload` is kept, and read in its pieces, until Decode() or
  // the next ReadHeader(). Without scratch_bytes. INVALID_ARGUMENT with libjpeg's reason.
  absl::StatusOr<PictureHeader> ReadHeader(const Payload& payload);

  // The most bytes that Decode() will take besides its Picture. REQUIRES: after ReadHeader().
  size_t ScratchBytes() const;

  // Decodes what ReadHeader() began, at `eighths`/8 of its size, as stored. Grey becomes RGB; CMYK
  // and YCCK are taken for Adobe's, inverted, like in Pillow. INVALID_ARGUMENT where the data is
  // cut off or corrupt, as far as libjpeg notices, or has more than kMostScans scans.
  absl::StatusOr<Picture> Decode(int eighths);

  // Few have more than 12. Each may cost as much as a whole picture, for a handful of bytes.
  static constexpr int kMostScans = 64;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace millrace
