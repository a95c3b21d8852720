// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/unique_fd.h"
#include "server/channel/layout.h"
#include "server/channel/shared_batch_buffer.h"

namespace millrace {

// The memory that a model's replicas share with the server: one sealed memfd, mapped once by each.
// It is created sparse at its cap, so buffers may be generous: only pages that were written count,
// and nothing needs mapping later. Thread-compatible; the parts have their own rules.
class ModelMemory {
 public:
  struct Options {
    size_t mailboxes = 0;     // The most replicas.
    size_t buffers = 0;       // The most batches at once.
    size_t buffer_bytes = 0;  // Per buffer, header included; rounded up to pages.
  };

  // Server: makes new memory.
  static absl::StatusOr<std::unique_ptr<ModelMemory>> Create(const Options& options);

  // Worker: maps the memory behind `fd`, which stays the caller's.
  static absl::StatusOr<std::unique_ptr<ModelMemory>> Open(int fd);

  ~ModelMemory();
  ModelMemory(const ModelMemory&) = delete;
  ModelMemory& operator=(const ModelMemory&) = delete;

  // The memfd; -1 where the memory was opened.
  int fd() const { return fd_.get(); }
  size_t buffers() const { return header_.buffers; }
  size_t mailboxes() const { return header_.mailboxes; }
  MailboxWords* mailbox(size_t index) const;

  // Server: buffer `index` as the dispatcher and the replica use it.
  SharedBatchBuffer& buffer(size_t index) { return *batch_buffers_[index]; }

  // The raw bytes of buffer `index`: a BatchHeader and the areas.
  std::byte* buffer_begin(size_t index) const;
  size_t buffer_bytes() const { return header_.buffer_bytes; }

 private:
  ModelMemory(UniqueFd fd, std::byte* begin, size_t size, const MemoryHeader& header)
      : fd_(std::move(fd)), begin_(begin), size_(size), header_(header) {}

  const UniqueFd fd_;
  std::byte* const begin_;
  const size_t size_;
  const MemoryHeader header_;  // A copy: the other side may write to the one that is shared.
  std::vector<std::unique_ptr<SharedBatchBuffer>> batch_buffers_;
};

}  // namespace millrace
