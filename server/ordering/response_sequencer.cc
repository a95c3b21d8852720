// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/ordering/response_sequencer.h"

#include <utility>

#include "server/base/check.h"

namespace millrace {

std::shared_ptr<ResponseSequencer> ResponseSequencer::Create(Send send) {
  return std::shared_ptr<ResponseSequencer>(new ResponseSequencer(std::move(send)));
}

Responder ResponseSequencer::Reserve() {
  MutexLock lock(mutex_);
  if (abandoned_) return Responder(shared_from_this(), first_place_);  // Answers to nobody.
  line_.push_back(nullptr);
  return Responder(shared_from_this(), first_place_ + line_.size() - 1);
}

void ResponseSequencer::Abandon() {
  std::deque<std::unique_ptr<Response>> dropped;  // Freed after the lock.
  MutexLock lock(mutex_);
  abandoned_ = true;
  first_place_ += line_.size();
  dropped.swap(line_);
}

uint64_t ResponseSequencer::outstanding() const {
  MutexLock lock(mutex_);
  return line_.size();
}

void ResponseSequencer::Deliver(uint64_t place, Response&& response) {
  mutex_.Lock();
  if (abandoned_) return mutex_.Unlock();
  MILLRACE_CHECK(place >= first_place_ && place - first_place_ < line_.size(),
                 "A place is answered once.");
  std::unique_ptr<Response>& slot = line_[place - first_place_];
  MILLRACE_CHECK(slot == nullptr, "A place is answered once.");
  if (sending_ || place != first_place_) {
    slot = std::make_unique<Response>(std::move(response));
    return mutex_.Unlock();
  }
  sending_ = true;
  std::unique_ptr<Response> waited;  // The next one, after `response`.
  for (Response* next = &response; next != nullptr; next = waited.get()) {
    line_.pop_front();
    ++first_place_;
    mutex_.Unlock();
    send_(std::move(*next));
    mutex_.Lock();
    waited = line_.empty() ? nullptr : std::move(line_.front());
  }
  sending_ = false;
  mutex_.Unlock();
}

}  // namespace millrace
