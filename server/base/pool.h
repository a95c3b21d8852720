// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <vector>

namespace millrace {

// Objects that are used again and again: allocates only while all of them are in use. An object
// stays where it is and keeps its state from one use to the next. Thread-compatible.
template <typename T>
class Pool {
 public:
  T& Take() {
    if (free_.empty()) return all_.emplace_back();
    T& object = *free_.back();
    free_.pop_back();
    return object;
  }
  void GiveBack(T& object) { free_.push_back(&object); }

 private:
  std::deque<T> all_;
  std::vector<T*> free_;
};

}  // namespace millrace
