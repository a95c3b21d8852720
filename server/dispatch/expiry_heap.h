// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/base/check.h"

namespace millrace {

// Elements by the time at which something happens to them, the earliest first. An element carries
// its time and its place (`absl::Time expiry; size_t expiry_place = kNotInHeap;`), so that it can
// leave from anywhere; entering and leaving take logarithmic time and, once the heap has been as
// large, allocate nothing. Owns nothing. Thread-compatible.
inline constexpr size_t kNotInHeap = static_cast<size_t>(-1);

template <typename T>
class ExpiryHeap {
 public:
  bool empty() const { return heap_.empty(); }
  size_t size() const { return heap_.size(); }
  T* top() const { return heap_.empty() ? nullptr : heap_.front(); }
  // The earliest time; InfiniteFuture() where there is none.
  absl::Time next() const { return heap_.empty() ? absl::InfiniteFuture() : heap_.front()->expiry; }

  // Enters an element by its `expiry`. REQUIRES: it is in no heap.
  void Push(T& element) {
    MILLRACE_CHECK(element.expiry_place == kNotInHeap, "An element is in one heap at a time.");
    heap_.push_back(&element);
    Rise(heap_.size() - 1);
  }

  // Takes an element of this heap out.
  void Remove(T& element) {
    const size_t place = std::exchange(element.expiry_place, kNotInHeap);
    T* const last = heap_.back();
    heap_.pop_back();
    if (last == &element) return;
    heap_[place] = last;
    last->expiry_place = place;
    Rise(place);
    Sink(last->expiry_place);
  }

 private:
  void Place(size_t place, T* element) {
    heap_[place] = element;
    element->expiry_place = place;
  }

  void Rise(size_t place) {
    T* const element = heap_[place];
    while (place > 0 && element->expiry < heap_[(place - 1) / 2]->expiry) {
      Place(place, heap_[(place - 1) / 2]);
      place = (place - 1) / 2;
    }
    Place(place, element);
  }

  void Sink(size_t place) {
    T* const element = heap_[place];
    for (size_t child = 2 * place + 1; child < heap_.size(); child = 2 * place + 1) {
      if (child + 1 < heap_.size() && heap_[child + 1]->expiry < heap_[child]->expiry) ++child;
      if (!(heap_[child]->expiry < element->expiry)) break;
      Place(place, heap_[child]);
      place = child;
    }
    Place(place, element);
  }

  std::vector<T*> heap_;
};

}  // namespace millrace
