// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace millrace {

// A count that threads add to without waiting for each other. Thread-safe; orders nothing.
class Counter {
 public:
  void Add(uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Spreads `T` over shards, so that threads write to cache lines of their own. Threads beyond
// kShards share a shard, so T must be thread-safe. A reader merges all shards.
template <typename T>
class Sharded {
 public:
  static constexpr size_t kShards = 16;

  // Makes each shard from `arguments`.
  template <typename... Arguments>
  explicit Sharded(const Arguments&... arguments) {
    for (auto& shard : shards_) shard = std::make_unique<Line>(arguments...);
  }

  // The calling thread's shard.
  T& Local() { return shards_[ThreadIndex() % kShards]->value; }

  // Calls `visit(const T&)` for every shard.
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (const auto& shard : shards_) visit(static_cast<const T&>(shard->value));
  }

  // The sum of `field(const T&)` over all shards.
  template <typename Field>
  uint64_t Sum(Field field) const {
    uint64_t sum = 0;
    ForEach([&](const T& shard) { sum += field(shard); });
    return sum;
  }

 private:
  struct alignas(64) Line {
    template <typename... Arguments>
    explicit Line(const Arguments&... arguments) : value(arguments...) {}
    T value;
  };

  // Numbers threads in the order in which they come here first.
  static size_t ThreadIndex() {
    static std::atomic<size_t> next{0};
    thread_local const size_t index = next.fetch_add(1, std::memory_order_relaxed);
    return index;
  }

  std::array<std::unique_ptr<Line>, kShards> shards_;
};

}  // namespace millrace
