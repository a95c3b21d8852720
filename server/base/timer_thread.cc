// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/timer_thread.h"

#include <thread>

namespace millrace {

TimerThread::TimerThread(Clock& clock) : clock_(clock), thread_("timer", [this] { Run(); }) {}

TimerThread::~TimerThread() {
  MutexLock lock(mutex_);
  stopping_ = true;
  changed_.NotifyAll();
}

Timer::Id TimerThread::Schedule(absl::Time when, absl::AnyInvocable<void()> callback) {
  MutexLock lock(mutex_);
  const Id id(when, next_number_++);
  const auto place = scheduled_.emplace(id, std::move(callback)).first;
  if (place == scheduled_.begin()) changed_.NotifyAll();
  return id;
}

void TimerThread::Cancel(const Id& id) {
  std::map<Id, absl::AnyInvocable<void()>>::node_type forgotten;  // Destroyed without the lock.
  MutexLock lock(mutex_);
  forgotten = scheduled_.extract(id);
  if (std::this_thread::get_id() == thread_id_) return;
  while (running_number_ == id.second) finished_.Wait(mutex_);
}

void TimerThread::Forget(const Id& id) {
  std::map<Id, absl::AnyInvocable<void()>>::node_type forgotten;  // Destroyed without the lock.
  MutexLock lock(mutex_);
  forgotten = scheduled_.extract(id);
}

void TimerThread::Run() {
  MutexLock lock(mutex_);
  thread_id_ = std::this_thread::get_id();
  while (!stopping_) {
    const auto next = scheduled_.begin();
    const absl::Time when = next == scheduled_.end() ? absl::InfiniteFuture() : next->first.first;
    if (when > clock_.Now()) {
      clock_.WaitUntil(changed_, mutex_, when);
    } else {
      RunOne(next);
    }
  }
}

void TimerThread::RunOne(std::map<Id, absl::AnyInvocable<void()>>::iterator next) {
  running_number_ = next->first.second;
  absl::AnyInvocable<void()> callback = std::move(next->second);
  scheduled_.erase(next);
  mutex_.Unlock();
  callback();
  callback = nullptr;  // What it captured goes before Cancel() may return.
  mutex_.Lock();
  running_number_ = 0;
  finished_.NotifyAll();
}

}  // namespace millrace
