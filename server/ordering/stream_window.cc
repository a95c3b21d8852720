// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/ordering/stream_window.h"

#include "server/base/check.h"

namespace millrace {

StreamWindow::Held& StreamWindow::At(uint64_t place) {
  const auto entry = held_.find(place);
  MILLRACE_CHECK(entry != held_.end(), "A request that was read and is not answered.");
  return entry->second;
}

uint64_t StreamWindow::Read(size_t bytes) {
  held_[next_place_].bytes = bytes;
  request_bytes_ += bytes;
  ++standing_;
  return next_place_++;
}

void StreamWindow::LetDrop(uint64_t place) {
  Held& held = At(place);
  MILLRACE_CHECK(!held.decided, "What is decided can't be dropped any more.");
  if (held.droppable) return;
  held.droppable = true;
  --standing_;
}

void StreamWindow::Decide(uint64_t place, size_t answer_bytes) {
  Held& held = At(place);
  MILLRACE_CHECK(!held.decided, "A request is decided once.");
  held.decided = true;
  request_bytes_ -= held.bytes;
  held.bytes = answer_bytes;
  answer_bytes_ += answer_bytes;
  if (held.droppable) ++droppable_decided_;
}

void StreamWindow::Write(uint64_t place) {
  const Held held = At(place);
  MILLRACE_CHECK(held.decided, "What is written was decided.");
  answer_bytes_ -= held.bytes;
  if (held.droppable) {
    --droppable_decided_;
  } else {
    --standing_;
  }
  held_.erase(place);
}

}  // namespace millrace
