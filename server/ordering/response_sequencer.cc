// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/ordering/response_sequencer.h"

#include <utility>

#include "server/base/check.h"

namespace millrace {

std::shared_ptr<ResponseSequencer> ResponseSequencer::Create(Options options) {
  return std::shared_ptr<ResponseSequencer>(new ResponseSequencer(std::move(options)));
}

Responder ResponseSequencer::Reserve() {
  MutexLock lock(mutex_);
  if (abandoned_) return Responder(shared_from_this(), taken_);  // Answers to nobody.
  if (order_ == AnswerOrder::kRequest) line_.push_back({taken_, nullptr});
  return Responder(shared_from_this(), taken_++);
}

void ResponseSequencer::Abandon() {
  std::deque<Waiting> dropped;  // Freed after the lock.
  MutexLock lock(mutex_);
  abandoned_ = true;
  sent_ = taken_;
  dropped.swap(line_);
}

uint64_t ResponseSequencer::outstanding() const {
  MutexLock lock(mutex_);
  return taken_ - sent_;
}

size_t ResponseSequencer::IndexOf(uint64_t place) {
  if (order_ == AnswerOrder::kCompletion) {
    MILLRACE_CHECK(line_.size() < taken_ - sent_, "A place is answered once.");
    line_.push_back({place, nullptr});
    return line_.size() - 1;
  }
  MILLRACE_CHECK(place >= sent_ && place < taken_ && line_[place - sent_].answer == nullptr,
                 "A place is answered once.");
  return place - sent_;
}

void ResponseSequencer::Deliver(uint64_t place, Response&& response) {
  if (decided_) decided_(place, response);
  mutex_.Lock();
  if (abandoned_) return mutex_.Unlock();
  const size_t index = IndexOf(place);
  if (sending_ || index > 0) {
    line_[index].answer = std::make_unique<Response>(std::move(response));
    return mutex_.Unlock();
  }
  sending_ = true;
  std::unique_ptr<Response> waited;  // The next one, after `response`.
  for (Response* next = &response; next != nullptr; next = waited.get()) {
    line_.pop_front();
    ++sent_;
    mutex_.Unlock();
    send_(place, std::move(*next));
    mutex_.Lock();
    waited = nullptr;
    if (line_.empty()) break;
    place = line_.front().place;
    waited = std::move(line_.front().answer);
  }
  sending_ = false;
  mutex_.Unlock();
}

}  // namespace millrace
