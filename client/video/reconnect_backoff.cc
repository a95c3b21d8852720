// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/reconnect_backoff.h"

#include <algorithm>
#include <utility>

namespace millrace {
inline namespace client {

ReconnectBackoff::ReconnectBackoff(absl::Duration first, absl::Duration most)
    : first_(std::min(first, most)), most_(most), wait_(first_) {}

absl::Duration ReconnectBackoff::Next(double random) {
  const absl::Duration wait = std::exchange(wait_, std::min(2 * wait_, most_));
  return wait * (0.5 + random / 2);
}

}  // namespace client
}  // namespace millrace
