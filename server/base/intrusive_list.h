// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/base/check.h"

namespace millrace {

// What an element of an IntrusiveList carries. Not copied with its element.
template <typename T>
struct ListHook {
  ListHook() = default;
  ListHook(const ListHook&) {}
  ListHook& operator=(const ListHook&) { return *this; }

  T* previous = nullptr;
  T* next = nullptr;
  bool linked = false;
};

// A doubly linked list whose links are in its elements, so that it allocates nothing and an element
// leaves it in constant time. Owns nothing; an element outlives its place in it. Thread-compatible.
template <typename T, ListHook<T> T::*kHook>
class IntrusiveList {
 public:
  bool empty() const { return front_ == nullptr; }
  T* front() const { return front_; }
  T* back() const { return back_; }
  static T* Next(const T& element) { return (element.*kHook).next; }
  static T* Previous(const T& element) { return (element.*kHook).previous; }

  void PushBack(T& element) { InsertBefore(nullptr, element); }
  void PushFront(T& element) { InsertBefore(front_, element); }

  // Links `element` before `place`; null is the end. REQUIRES: it is in no list of this hook.
  void InsertBefore(T* place, T& element) {
    ListHook<T>& hook = element.*kHook;
    MILLRACE_CHECK(!hook.linked, "An element is in one list of a hook at a time.");
    hook.linked = true;
    hook.next = place;
    hook.previous = place == nullptr ? back_ : (place->*kHook).previous;
    (hook.previous == nullptr ? front_ : (hook.previous->*kHook).next) = &element;
    (place == nullptr ? back_ : (place->*kHook).previous) = &element;
  }

  // Unlinks an element of this list.
  void Remove(T& element) {
    ListHook<T>& hook = element.*kHook;
    MILLRACE_CHECK(hook.linked, "Only an element of the list leaves it.");
    (hook.previous == nullptr ? front_ : (hook.previous->*kHook).next) = hook.next;
    (hook.next == nullptr ? back_ : (hook.next->*kHook).previous) = hook.previous;
    hook.linked = false;
    hook.previous = hook.next = nullptr;
  }

 private:
  T* front_ = nullptr;
  T* back_ = nullptr;
};

}  // namespace millrace
