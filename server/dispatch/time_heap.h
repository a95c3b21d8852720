// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "server/base/check.h"

namespace millrace {

inline constexpr size_t kNotInHeap = static_cast<size_t>(-1);

// Elements by the time at which something happens to them, the earliest first. An element carries
// its time and its place, kNotInHeap at first, so that it can leave from anywhere; entering and
// leaving take logarithmic time and, once the heap has been as large, allocate nothing. Owns
// nothing. Thread-compatible.
template <typename T, absl::Time T::*kTime, size_t T::*kPlace>
class TimeHeap {
 public:
  bool empty() const { return heap_.empty(); }
  size_t size() const { return heap_.size(); }
  T* top() const { return heap_.empty() ? nullptr : heap_.front(); }
  // The earliest time; InfiniteFuture() where there is none.
  absl::Time next() const { return heap_.empty() ? absl::InfiniteFuture() : TimeOf(0); }

  // Enters an element, unless its time never comes. REQUIRES: it isn't in the heap.
  void Push(T& element) {
    MILLRACE_CHECK(element.*kPlace == kNotInHeap, "An element is in a heap once.");
    if (element.*kTime == absl::InfiniteFuture()) return;
    heap_.push_back(&element);
    Rise(heap_.size() - 1);
  }

  // Takes an element out, where it is in the heap.
  void Remove(T& element) {
    const size_t place = std::exchange(element.*kPlace, kNotInHeap);
    if (place == kNotInHeap) return;
    T* const last = heap_.back();
    heap_.pop_back();
    if (last == &element) return;
    Place(place, last);
    Rise(place);
    Sink(last->*kPlace);
  }

  // The earliest that is `wanted` of those before `end`, null where there is none. Gives up after
  // `most` that aren't wanted.
  T* FirstBefore(absl::Time end, int most, absl::FunctionRef<bool(const T&)> wanted) const {
    T* found = nullptr;
    absl::InlinedVector<size_t, 32> to_look_at = {0};
    while (!to_look_at.empty()) {
      const size_t place = to_look_at.back();
      to_look_at.pop_back();
      if (place >= heap_.size() || !(TimeOf(place) < end)) continue;
      if (found != nullptr && !(TimeOf(place) < found->*kTime)) continue;
      if (wanted(*heap_[place])) {
        found = heap_[place];
      } else if (most-- > 0) {
        to_look_at.push_back(2 * place + 2);
        to_look_at.push_back(2 * place + 1);
      }
    }
    return found;
  }

 private:
  absl::Time TimeOf(size_t place) const { return heap_[place]->*kTime; }

  void Place(size_t place, T* element) {
    heap_[place] = element;
    element->*kPlace = place;
  }

  void Rise(size_t place) {
    T* const element = heap_[place];
    while (place > 0 && element->*kTime < TimeOf((place - 1) / 2)) {
      Place(place, heap_[(place - 1) / 2]);
      place = (place - 1) / 2;
    }
    Place(place, element);
  }

  void Sink(size_t place) {
    T* const element = heap_[place];
    for (size_t child = 2 * place + 1; child < heap_.size(); child = 2 * place + 1) {
      if (child + 1 < heap_.size() && TimeOf(child + 1) < TimeOf(child)) ++child;
      if (!(TimeOf(child) < element->*kTime)) break;
      Place(place, heap_[child]);
      place = child;
    }
    Place(place, element);
  }

  std::vector<T*> heap_;
};

}  // namespace millrace
