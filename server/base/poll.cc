// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/poll.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>

namespace millrace {

int Poll(absl::Span<pollfd> entries, absl::Duration timeout) {
  const bool for_ever = timeout > absl::Milliseconds(std::numeric_limits<int>::max());
  const absl::Duration rounded = absl::Ceil(timeout, absl::Milliseconds(1));
  const int milliseconds =
      for_ever ? -1 : static_cast<int>(std::max<int64_t>(0, absl::ToInt64Milliseconds(rounded)));
  int ready;
  do {
    ready = poll(entries.data(), entries.size(), milliseconds);
  } while (ready < 0 && errno == EINTR);
  return ready;
}

}  // namespace millrace
