// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/base/unique_fd.h"

namespace millrace {

// An eventfd by which one thread or process wakes another's poll(); invalid, with errno set, where
// there are no more descriptors. Readable from SignalEvent() to ClearEvent().
UniqueFd MakeEvent();

// Never block, and may be called by any thread.
void SignalEvent(int event);
void ClearEvent(int event);

}  // namespace millrace
