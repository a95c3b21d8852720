// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <semaphore.h>

namespace millrace {
inline namespace client {

constexpr int kInterrupted = 130;  // A run's exit code then: as a shell says it of SIGINT.

// From now on the first SIGINT or SIGTERM ends a run in good order: Interrupted() says so, and
// `wake`, if there is one, is posted. A second one, of either kind, ends the program, as it does by
// default.
void ListenForInterrupts(sem_t* wake = nullptr);
bool Interrupted();

// Before what was to be posted goes.
void WakeNobody();

// Waits until `fd` can be read, or the run is interrupted: true where it can be read, at its end,
// too.
bool WaitForInput(int fd);

}  // namespace client
}  // namespace millrace
