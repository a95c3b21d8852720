// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/video/image.h"

namespace millrace {
inline namespace client {

// The picture as a JPEG file of that quality, 1 to 100 as libjpeg counts it. INVALID_ARGUMENT for
// one that is too large for the format.
absl::StatusOr<std::string> EncodeJpeg(const Image& image, int quality);

}  // namespace client
}  // namespace millrace
