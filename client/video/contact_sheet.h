// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "absl/status/status.h"
#include "client/video/image.h"
#include "client/video/pixel_scaler.h"

namespace millrace {
inline namespace client {

// A grid of pictures, spread evenly over a run of any length: of those offered it keeps every k-th,
// and doubles k whenever it has twice as many as it shall show. Thread-compatible.
class ContactSheet {
 public:
  explicit ContactSheet(int pictures) : pictures_(pictures) {}

  // Whether the next picture will be kept: it is to be offered by Add(), else by Skip().
  bool Wants() const { return offered_ % every_ == 0; }
  absl::Status Add(const Image& image);
  void Skip() { ++offered_; }

  // The sheet; without pixels where no picture was added.
  Image Render() const;

  // Writes the sheet, as a JPEG or a PNG by the name's ending.
  absl::Status Save(const std::string& path) const;

  // INVALID_ARGUMENT for a name with another ending.
  static absl::Status CheckName(const std::string& path);

 private:
  const int pictures_;
  int64_t every_ = 1;
  int64_t offered_ = 0;
  std::deque<Image> tiles_;
  PixelScaler scaler_;
};

}  // namespace client
}  // namespace millrace
