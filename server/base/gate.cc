// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/gate.h"

#include "server/base/check.h"

namespace millrace {

bool Gate::TryEnter() {
  MutexLock lock(mutex_);
  if (closed_) return false;
  ++inside_;
  return true;
}

void Gate::Leave() {
  MutexLock lock(mutex_);
  MILLRACE_CHECK(inside_ > 0, "Leave() needs a TryEnter() that was true.");
  if (--inside_ == 0 && closed_) left_.NotifyAll();
}

bool Gate::Close(Clock& clock, absl::Time deadline) {
  MutexLock lock(mutex_);
  closed_ = true;
  while (inside_ > 0 && clock.Now() < deadline) clock.WaitUntil(left_, mutex_, deadline);
  return inside_ == 0;
}

int Gate::inside() const {
  MutexLock lock(mutex_);
  return inside_;
}

}  // namespace millrace
