// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/tracing/traced_request.h"

namespace millrace {

// Writes requests into a file, by a thread of its own; see ChromeTrace. Thread-safe.
//
// Invariants:
//  1. Add() never waits for the disk: where kMostWaiting wait to be written, or the file is full,
//     the request is dropped and counted.
//  2. The file never grows beyond the limit by more than one request.
class TraceFile {
 public:
  static constexpr size_t kMostWaiting = 4096;

  // Makes the file anew. An error names it.
  static absl::StatusOr<std::unique_ptr<TraceFile>> Create(const std::string& path,
                                                           int64_t most_bytes, Clock& clock);

  // Writes what waits, and the file's end.
  ~TraceFile();

  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  void Add(TracedRequest request) ABSL_LOCKS_EXCLUDED(mutex_);

  // Requests that are not in the file.
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  TraceFile(std::FILE* file, std::string path, int64_t most_bytes, absl::Time origin);

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void Drop(uint64_t count) { dropped_.fetch_add(count, std::memory_order_relaxed); }

  std::FILE* const file_;
  const std::string path_;
  const int64_t most_bytes_;
  const absl::Time origin_;
  std::atomic<uint64_t> dropped_{0};
  Mutex mutex_;
  CondVar changed_;
  std::deque<TracedRequest> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool full_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<Thread> thread_;
};

}  // namespace millrace
