// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/inference/payload.h"
#include "server/transform/picture.h"
#include "server/transform/picture_format.h"

namespace millrace {

// Checks that a raw picture of `bytes` bytes has pixels and is as large as it says:
// INVALID_ARGUMENT says what came and what was expected. REQUIRES: IsRaw(encoding.format).
absl::Status CheckRawPixels(const PictureEncoding& encoding, size_t bytes);

// The bytes of `payload` in one piece: where it has more than one, copied into `scratch`.
absl::Span<const std::byte> InOnePiece(const Payload& payload, std::vector<std::byte>& scratch);

// Makes a picture of raw bytes, with `scratch` where NV12, I420 or grey come in pieces. NV12 and
// I420 are ITU-R 601 of limited range, each of their colours taken for 2 x 2 pixels, to the bit as
// in OpenCV's cvtColor(). REQUIRES: CheckRawPixels() is OK.
Picture FromRawPixels(const PictureEncoding& encoding, const Payload& payload,
                      std::vector<std::byte>& scratch);

}  // namespace millrace
