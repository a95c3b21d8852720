// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "server/inference/shape.h"

namespace millrace {

// What lies in a model's shared memory, byte for byte. Server and worker are built together; the
// magic number catches a mix of builds.
//
//   MemoryHeader | MailboxWords × mailboxes | buffer 0 | buffer 1 | …
//
// A buffer is a BatchHeader, then the input areas, then whatever outputs the worker places behind
// them. Everything is kAreaAlignment-aligned; mailboxes and buffers start on pages.

inline constexpr uint64_t kChannelMagic = 0x4d696c6c72616331;  // "Millrac1"
inline constexpr size_t kPageSize = 4096;
inline constexpr size_t kAreaAlignment = 64;
inline constexpr size_t kMostMessageBytes = 2048;

constexpr size_t AlignUp(size_t value, size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

struct MemoryHeader {
  uint64_t magic;
  uint64_t mailboxes;
  uint64_t buffers;
  uint64_t buffer_bytes;
};

// One replica's mailbox. `posted` and `completed` count batches; they are equal while the worker
// is idle. Each side announces when it goes to sleep, so that the other wakes it only then.
struct MailboxWords {
  alignas(64) std::atomic<uint32_t> posted;  // A futex the worker sleeps on.
  std::atomic<uint32_t> worker_sleeps;
  std::atomic<uint32_t> buffer;  // The posted batch's buffer.
  alignas(64) std::atomic<uint32_t> completed;
  std::atomic<uint32_t> server_sleeps;
};
static_assert(sizeof(MailboxWords) <= kPageSize);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

struct TensorHeader {
  int32_t data_type;  // DataType
  int32_t rank;
  std::array<int64_t, kMostDims> dims;
  uint64_t offset;  // From the buffer's start.
  uint64_t bytes;
};

struct BatchHeader {
  // Written by the server before it posts.
  int64_t rows;
  uint32_t input_count;
  uint64_t outputs_begin;  // Where the worker may start to place outputs.
  std::array<TensorHeader, kMostTensors> inputs;
  // Written by the worker before it completes.
  int32_t status_code;  // absl::StatusCode
  uint32_t message_bytes;
  std::array<char, kMostMessageBytes> message;
  uint32_t output_count;
  std::array<TensorHeader, kMostTensors> outputs;
  int64_t execute_nanoseconds;  // The forward pass, by the worker's clock.
};

inline constexpr size_t kBatchHeaderBytes = AlignUp(sizeof(BatchHeader), kPageSize);

}  // namespace millrace
