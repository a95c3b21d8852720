// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_map.h"

namespace millrace {

// What a stream holds of its client's requests and of their answers, and so whether it has room for
// another request. Thread-compatible.
//
// A request stands in the window from its reading until its answer is written: a client that
// doesn't take its answers may not bring more. A request that may be dropped for a newer one is no
// reason to stop reading while it waits, for it is the newer ones that make room; how many of them
// wait is bounded where they wait. Its answer, once decided, is bounded apart and more generously:
// it may have to wait for an older one of the stream, and must not keep the next frame out
// meanwhile.
//
// Invariants: HasRoom() is false while
//  1. `window` requests that can't be dropped are read and their answers not written,
//  2. most_droppable() requests that may be dropped are decided and their answers not written,
//  3. undecided requests hold `max_bytes` or more, or answers that are not written do. So requests
//     hold at most one message more than that, and a single one passes whatever its size; answers
//     hold at most what those requests are answered with that were read before.
class StreamWindow {
 public:
  StreamWindow(int window, size_t max_bytes) : window_(window), max_bytes_(max_bytes) {}

  // A request was read. Returns its place: they are numbered from 0.
  uint64_t Read(size_t bytes);

  // The request may be dropped for a newer one. REQUIRES: it is undecided.
  void LetDrop(uint64_t place);

  // The answer is there, to be sent when its turn comes. Called once for each request.
  void Decide(uint64_t place, size_t answer_bytes);

  // The answer is written; the request is forgotten. REQUIRES: it is decided.
  void Write(uint64_t place);

  // Whether another request may be read.
  bool HasRoom() const {
    return standing_ < window_ && droppable_decided_ < most_droppable() &&
           request_bytes_ < max_bytes_ && answer_bytes_ < max_bytes_;
  }

  // How many requests that can't be dropped may stand in it.
  int window() const { return window_; }

  // Requests read whose answers are not written.
  size_t size() const { return held_.size(); }

  // Bytes of requests that are undecided and of answers that are not written.
  size_t held_bytes() const { return request_bytes_ + answer_bytes_; }

  // A stream with a short window that drops nearly every frame still goes on for a second or two
  // behind an answer that takes long; an answer that says "dropped" is a few hundred bytes.
  int most_droppable() const {
    return window_ < kFewestDroppable / kWindows ? kFewestDroppable : kWindows * window_;
  }

 private:
  static constexpr int kFewestDroppable = 64;
  static constexpr int kWindows = 4;

  struct Held {
    size_t bytes = 0;  // Of the request until it is decided, of the answer then.
    bool droppable = false;
    bool decided = false;
  };

  Held& At(uint64_t place);

  int window_;
  size_t max_bytes_;
  uint64_t next_place_ = 0;
  absl::flat_hash_map<uint64_t, Held> held_;  // By place.
  int standing_ = 0;                          // In the window.
  int droppable_decided_ = 0;
  size_t request_bytes_ = 0;
  size_t answer_bytes_ = 0;
};

}  // namespace millrace
