// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/sealed_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {

absl::StatusOr<UniqueFd> SealedBytes::Copy(absl::Span<const std::byte> bytes) {
  UniqueFd fd(memfd_create("millrace-data", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, "memfd_create");
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t wrote = write(fd.get(), bytes.data() + at, bytes.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      return ErrnoStatus(errno, absl::StrCat("writing ", bytes.size(), " bytes to a memfd"));
    }
    at += static_cast<size_t>(wrote);
  }
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return ErrnoStatus(errno, "sealing a memfd");
  return fd;
}

absl::StatusOr<SealedBytes> SealedBytes::Map(int fd) {
  struct stat file = {};
  if (fstat(fd, &file) != 0) return ErrnoStatus(errno, "fstat of sealed bytes");
  const auto size = static_cast<size_t>(file.st_size);
  // Private, since older kernels map what is sealed against writing in no other way. Pages that
  // nobody writes to are the memfd's own all the same.
  void* const begin = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (begin == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("mapping ", size, " bytes"));
  return SealedBytes({static_cast<std::byte*>(begin), size});
}

SealedBytes::~SealedBytes() {
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

}  // namespace millrace
