// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "absl/types/span.h"
#include "server/transform/image_transform.h"
#include "server/transform/picture.h"
#include "server/transform/row_kernels.h"

namespace millrace {

// Writes what `transform` makes of `picture` to `row`, of any alignment: resized, in its place,
// normalised. One pass over the row, with a few lines of scratch. Thread-safe.
// REQUIRES: a valid `transform`; row.size() == RowBytes(transform).
void WriteRow(const Picture& picture, const ImageTransform& transform, absl::Span<std::byte> row,
              const RowKernels& kernels = NativeRowKernels());

}  // namespace millrace
