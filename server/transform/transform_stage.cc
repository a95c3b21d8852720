// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/transform_stage.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {

TransformStage::TransformStage(int workers, Clock& clock) : clock_(clock), limit_(workers) {
  for (int i = 0; i < workers; ++i) {
    threads_.push_back(std::make_unique<Thread>(absl::StrCat("transform-", i), [this] { Run(); }));
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

void TransformStage::Limit(int working, std::vector<int> cpus) {
  MutexLock lock(mutex_);
  limit_ = working;
  cpus_ = std::move(cpus);
  changed_.NotifyAll();
}

int TransformStage::limit() const {
  MutexLock lock(mutex_);
  return limit_;
}

absl::Duration TransformStage::busy() const {
  MutexLock lock(mutex_);
  return busy_;
}

void TransformStage::Run() {
  std::vector<int> cpus;
  for (;;) {
    Turn turn;
    {
      MutexLock lock(mutex_);
      turn = NextTurn();
    }
    if (turn.source == nullptr) return;
    if (turn.cpus != cpus) PinThisThread(cpus = std::move(turn.cpus));
    const absl::Time begin = clock_.Now();
    if (auto work = turn.source->NextPreparation()) {
      WorkWaits(std::move(turn.source));  // There may be more, for this thread or another.
      work();
    }
    const absl::Duration worked = clock_.Now() - begin;
    MutexLock lock(mutex_);
    busy_ += worked;
    --working_;
  }
}

TransformStage::Turn TransformStage::NextTurn() {
  while (!stopping_ && (sources_.empty() || working_ >= limit_)) changed_.Wait(mutex_);
  if (stopping_) return {};
  Turn turn = {.source = std::move(sources_.front()), .cpus = cpus_};
  sources_.pop_front();
  ++working_;
  return turn;
}

}  // namespace millrace
