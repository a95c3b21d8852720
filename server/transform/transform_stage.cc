// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/transform_stage.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {

TransformStage::TransformStage(const Options& options) {
  for (int i = 0; i < options.workers; ++i) {
    threads_.push_back(std::make_unique<Thread>(
        absl::StrCat("transform-", i), [this] { Run(); }, options.cpus));
  }
}

TransformStage::~TransformStage() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  threads_.clear();
}

void TransformStage::WorkWaits(std::shared_ptr<PreparationSource> source) {
  MutexLock lock(mutex_);
  if (std::find(sources_.begin(), sources_.end(), source) != sources_.end()) return;
  sources_.push_back(std::move(source));
  changed_.NotifyOne();
}

void TransformStage::Run() {
  while (std::shared_ptr<PreparationSource> source = NextSource()) {
    auto work = source->NextPreparation();
    if (!work) continue;
    WorkWaits(std::move(source));  // There may be more, for this thread or another.
    work();
  }
}

std::shared_ptr<PreparationSource> TransformStage::NextSource() {
  MutexLock lock(mutex_);
  while (!stopping_ && sources_.empty()) changed_.Wait(mutex_);
  if (stopping_) return nullptr;
  std::shared_ptr<PreparationSource> next = std::move(sources_.front());
  sources_.pop_front();
  return next;
}

}  // namespace millrace
