// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/transform/picture.h"
#include "server/transform/picture_header.h"

namespace millrace {

// Reads one WebP with libwebp, which has nothing to keep for the next. Thread-compatible.
class WebpReader {
 public:
  // `bytes` are all of the file; they are kept.
  explicit WebpReader(absl::Span<const std::byte> bytes);
  ~WebpReader();
  WebpReader(const WebpReader&) = delete;
  WebpReader& operator=(const WebpReader&) = delete;

  // Reads the container. Without scratch_bytes. INVALID_ARGUMENT where it is corrupt or cut off, or
  // the picture moves.
  absl::StatusOr<PictureHeader> ReadHeader();

  // The most bytes that Decode() will take besides its Picture, but for what libwebp keeps of a
  // lossless picture's codes. REQUIRES: after ReadHeader().
  size_t ScratchBytes() const;

  // Decodes what ReadHeader() began, as stored; alpha is dropped. INVALID_ARGUMENT where the data
  // is cut off or corrupt.
  absl::StatusOr<Picture> Decode();

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace millrace
