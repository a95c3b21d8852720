// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/client.h"

#include <utility>

namespace millrace {

Client::Client(const Load& load, int number, EventLoop& loop, SimulatedModel& model,
               Journal& journal, uint64_t seed)
    : load_(load),
      number_(number),
      loop_(loop),
      model_(model),
      journal_(journal),
      random_(seed),
      caller_(std::make_shared<Caller>(std::make_shared<Flow>(
          Flow::Options{.weight = load.weight,
                        .overflow = load.overflow,
                        .most_waiting = load.most_waiting,
                        .max_age = load.max_age,
                        .on_parked = [this](int change) { OnParked(change); }}))) {}

void Client::Start(absl::Time end) {
  end_ = end;
  if (load_.interval) {
    if (load_.on) burst_ends_ = loop_.now() + load_.on(random_);
    return loop_.At(NextArrival(), this, kArrive);
  }
  // Not all at one moment.
  const DrawTime first = Uniform(absl::ZeroDuration(), absl::Milliseconds(1));
  for (int i = 0; i < load_.window; ++i) {
    const absl::Duration think = load_.think ? load_.think(random_) : absl::ZeroDuration();
    loop_.At(loop_.now() + think + first(random_), this, kReturn);
  }
}

void Client::Act(uint64_t what) {
  if (what == kRead) {
    while (parked_ == 0 && !unread_.empty()) {
      const Unread next = unread_.front();
      unread_.pop_front();
      Submit(next);
    }
    return;
  }
  if (loop_.now() > end_) return;
  Send();
  if (what == kArrive) loop_.At(NextArrival(), this, kArrive);
}

void Client::OnAnswer(const Entry& /*entry*/) {
  if (load_.interval) return;
  const absl::Duration think = load_.think ? load_.think(random_) : absl::ZeroDuration();
  loop_.At(loop_.now() + think, this, kReturn);
}

void Client::Send() {
  Entry entry;
  entry.client = number_;
  entry.sent = loop_.now();
  entry.rows = load_.rows ? load_.rows(random_) : 1;
  entry.shape = load_.shape ? static_cast<int>(load_.shape(random_)) : 0;
  if (load_.timeout) entry.deadline = entry.sent + load_.timeout(random_);
  const Unread request = {.place = journal_.Enter(entry, this),
                          .shape = entry.shape,
                          .rows = entry.rows,
                          .deadline = entry.deadline};
  if (parked_ > 0 || !unread_.empty()) {
    unread_.push_back(request);
  } else {
    Submit(request);
  }
}

void Client::Submit(const Unread& request) {
  auto pending =
      model_.MakeRequest(request.shape, request.rows, journal_.Expect(request.place), caller_);
  pending->deadline = request.deadline;
  pending->level = load_.level;
  model_.dispatcher().Submit(std::move(pending));
}

void Client::OnParked(int change) {
  parked_ += change;
  // Not from within the dispatcher: a stream's next message comes later, too.
  if (parked_ == 0 && !unread_.empty()) loop_.At(loop_.now(), this, kRead);
}

absl::Time Client::NextArrival() {
  absl::Time next = loop_.now() + load_.interval(random_);
  while (next > burst_ends_) {
    const absl::Duration pause = load_.off(random_);
    next += pause;
    burst_ends_ += pause + load_.on(random_);
  }
  return next;
}

}  // namespace millrace
