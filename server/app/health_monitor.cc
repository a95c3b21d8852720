// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/app/health_monitor.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace millrace {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(1);

}  // namespace

HealthMonitor::HealthMonitor(Context context)
    : context_(std::move(context)),
      thread_(std::make_unique<Thread>("health", [this] { Run(); })) {}

void HealthMonitor::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.reset();
}

void HealthMonitor::Poke() {
  MutexLock lock(mutex_);
  poked_ = true;
  changed_.NotifyAll();
}

void HealthMonitor::Run() {
  absl::Time next = absl::InfiniteFuture();
  for (;;) {
    {
      MutexLock lock(mutex_);
      while (!stopping_ && !poked_ && context_.clock->Now() < next) {
        context_.clock->WaitUntil(changed_, mutex_, next);
      }
      if (stopping_) return;
      poked_ = false;
    }
    next = Look();
  }
}

absl::Time HealthMonitor::Look() {
  MutexLock lock(looking_);
  const absl::Time now = context_.clock->Now();
  absl::Time next = now + kInterval;
  for (const std::string& name : context_.repository->Names()) {
    const absl::StatusOr<std::shared_ptr<ServedModel>> model = context_.repository->Find(name, "");
    context_.tell(name, model.ok() ? (*model)->readiness() : model.status());
    const absl::Time unready = model.ok() ? (*model)->unready_from() : now;
    if (unready > now) next = std::min(next, unready);  // Else it is told already.
  }
  context_.tell("", context_.server_readiness());
  return next;
}

}  // namespace millrace
