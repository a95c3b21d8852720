// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/transform/transform_stage.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {

TransformStage::TransformStage(int workers, Clock& clock) : clock_(clock), limit_(workers) {
  MutexLock lock(mutex_);
  StartWorkers(workers);
}

TransformStage::~TransformStage() {
  std::vector<std::unique_ptr<Thread>> ending;  // Joined without the lock, which they take.
  MutexLock lock(mutex_);
  stopping_ = true;
  changed_.NotifyAll();
  ending.swap(threads_);
}

void TransformStage::StartWorkers(int all) {
  while (threads_.size() < static_cast<size_t>(all)) {
    threads_.push_back(
        std::make_unique<Thread>(absl::StrCat("transform-", threads_.size()), [this] { Run(); }));
  }
}

void TransformStage::WorkWaits(std::shared_ptr<PreparationSource> source) {
  MutexLock lock(mutex_);
  if (std::find(sources_.begin(), sources_.end(), source) != sources_.end()) return;
  sources_.push_back(std::move(source));
  changed_.NotifyOne();
}

void TransformStage::Limit(int working, std::vector<int> cpus) {
  MutexLock lock(mutex_);
  StartWorkers(working);
  limit_ = working;
  cpus_ = std::move(cpus);
  changed_.NotifyAll();
}

int TransformStage::workers() const {
  MutexLock lock(mutex_);
  return static_cast<int>(threads_.size());
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
    if (turn.cpus != cpus) {
      cpus = std::move(turn.cpus);
      PinThisThread(cpus.empty() ? CpusOf(getpid()) : cpus);
    }
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
