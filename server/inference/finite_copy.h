// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "server/inference/data_type.h"

namespace millrace {

// Copies `from` to `to`, which don't overlap, and returns how many of the elements are NaN or
// infinite; integers never are. Counts what it has just copied, while that is in the cache.
// REQUIRES: as many bytes at `to`, and whole elements.
int64_t CopyCountingNonFinite(DataType type, absl::Span<const std::byte> from, std::byte* to);

}  // namespace millrace
