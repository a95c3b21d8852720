// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/model_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/status.h"

namespace millrace {
namespace {

size_t TotalBytes(const MemoryHeader& header) {
  return kPageSize * (1 + header.mailboxes) + header.buffers * header.buffer_bytes;
}

absl::StatusOr<std::byte*> Map(int fd, size_t size) {
  void* begin = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (begin == MAP_FAILED) {
    return ErrnoStatus(errno, absl::StrCat("mapping ", size, " bytes of shared memory"));
  }
  return static_cast<std::byte*>(begin);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelMemory>> ModelMemory::Create(const Options& options) {
  MemoryHeader header = {.magic = kChannelMagic,
                         .mailboxes = options.mailboxes,
                         .buffers = options.buffers,
                         .buffer_bytes = AlignUp(options.buffer_bytes, kPageSize)};
  MILLRACE_CHECK(header.buffer_bytes >= kBatchHeaderBytes, "A buffer must hold its header.");
  const size_t size = TotalBytes(header);
  UniqueFd fd(memfd_create("millrace-model", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, "memfd_create");
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("sizing shared memory to ", size, " bytes"));
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "sealing shared memory");
  }
  MILLRACE_ASSIGN_OR_RETURN(std::byte* const begin, Map(fd.get(), size));
  *reinterpret_cast<MemoryHeader*>(begin) = header;
  std::unique_ptr<ModelMemory> memory(new ModelMemory(std::move(fd), begin, size, header));
  for (size_t i = 0; i < options.buffers; ++i) {
    memory->batch_buffers_.push_back(std::make_unique<SharedBatchBuffer>(
        memory->buffer_begin(i), header.buffer_bytes, static_cast<uint32_t>(i)));
  }
  return memory;
}

absl::StatusOr<std::unique_ptr<ModelMemory>> ModelMemory::Open(int fd) {
  struct stat file = {};
  if (fstat(fd, &file) != 0) return ErrnoStatus(errno, "fstat of the shared memory");
  const auto size = static_cast<size_t>(file.st_size);
  if (size < kPageSize) return absl::InternalError("The shared memory is smaller than a page.");
  MILLRACE_ASSIGN_OR_RETURN(std::byte* const begin, Map(fd, size));
  MemoryHeader header;
  std::memcpy(&header, begin, sizeof(header));
  std::unique_ptr<ModelMemory> memory(new ModelMemory(UniqueFd(), begin, size, header));
  if (header.magic != kChannelMagic || TotalBytes(header) != size) {
    return absl::FailedPreconditionError(
        "The shared memory has another layout: millrace-server and millrace-worker are of "
        "different builds; install both from one.");
  }
  return memory;
}

ModelMemory::~ModelMemory() { munmap(begin_, size_); }

MailboxWords* ModelMemory::mailbox(size_t index) const {
  MILLRACE_CHECK(index < mailboxes(), "There is one mailbox per replica.");
  return reinterpret_cast<MailboxWords*>(begin_ + kPageSize * (1 + index));
}

std::byte* ModelMemory::buffer_begin(size_t index) const {
  MILLRACE_CHECK(index < buffers(), "The buffer must be one of the model's.");
  return begin_ + kPageSize * (1 + mailboxes()) + index * buffer_bytes();
}

}  // namespace millrace
