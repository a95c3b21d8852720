// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "absl/types/span.h"
#include "server/transform/picture.h"

namespace millrace {

// The orientation that an EXIF block tells, 1 to 8; 1 where it tells none, or is broken. With or
// without the "Exif\0\0" that JPEG puts before the block.
int ReadOrientation(absl::Span<const std::byte> exif);

// Whether `orientation` swaps width and height.
inline bool SwapsSides(int orientation) { return orientation >= 5; }

// Turns a picture as stored into one as shown.
Picture Oriented(Picture stored, int orientation);

}  // namespace millrace
