// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/event_fd.h"

#include <sys/eventfd.h>

namespace millrace {

UniqueFd MakeEvent() { return UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void SignalEvent(int event) { eventfd_write(event, 1); }

void ClearEvent(int event) {
  eventfd_t count;
  eventfd_read(event, &count);
}

}  // namespace millrace
