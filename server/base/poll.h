// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace millrace {

// poll(2): how many of `entries` have something to say, 0 after `timeout`, which is rounded up to
// milliseconds; what is longer than poll() can tell (24 days) is for ever. Starts over where a
// signal interrupts it. Negative with errno set where it fails.
int Poll(absl::Span<pollfd> entries, absl::Duration timeout);

}  // namespace millrace
