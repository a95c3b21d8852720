// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

namespace millrace {
inline namespace client {

// How long a source that broke off is left alone before it is connected again: twice as long after
// every failure, up to a limit, and of that a random part between half and all, so that many
// clients of a camera don't come back at once. Knows no clock. Thread-compatible.
class ReconnectBackoff {
 public:
  ReconnectBackoff(absl::Duration first, absl::Duration most);

  // The wait after one more failure. `random` is from [0, 1).
  absl::Duration Next(double random);

  // A connection has brought a frame: the next wait is as short as the first.
  void Reset() { wait_ = first_; }

 private:
  const absl::Duration first_;
  const absl::Duration most_;
  absl::Duration wait_;
};

}  // namespace client
}  // namespace millrace
