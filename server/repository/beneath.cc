// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;  // No waiting for a pipe's writer.

// For kernels and containers without openat2: -1 and EXDEV where the path leads out.
int OpenResolved(const fs::path& root, const fs::path& path) {
  std::error_code error;
  const fs::path inside = fs::canonical(root, error);
  const fs::path real = error ? fs::path() : fs::canonical(root / path, error);
  if (error) return errno = error.value(), -1;
  const auto differ = std::mismatch(inside.begin(), inside.end(), real.begin(), real.end());
  if (differ.first != inside.end()) return errno = EXDEV, -1;
  return open(real.c_str(), kFlags);
}

int OpenInside(const std::string& root, const std::string& path) {
  const UniqueFd folder(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) return -1;
  open_how how = {};
  how.flags = kFlags;
  how.resolve = RESOLVE_BENEATH;
  const auto fd =
      static_cast<int>(syscall(SYS_openat2, folder.get(), path.c_str(), &how, sizeof(how)));
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  return OpenResolved(root, path);
}

}  // namespace

absl::StatusOr<UniqueFd> OpenBeneath(const std::string& root, const std::string& path) {
  UniqueFd fd(OpenInside(root, path));
  if (fd.valid()) return fd;
  const int error = errno;
  const std::string what = absl::StrCat(root, "/", path);
  if (error == EXDEV) {
    return absl::PermissionDeniedError(
        absl::StrCat(what, " leads out of ", root,
                     ", which no link in a model repository may; copy or mount it inside"));
  }
  const absl::Status status = ErrnoStatus(error, absl::StrCat("opening ", what));
  if (error == ENOENT) return absl::NotFoundError(status.message());
  return error == EACCES ? absl::PermissionDeniedError(status.message()) : status;
}

absl::StatusOr<std::string> ReadBeneath(const std::string& root, const std::string& path,
                                        size_t most) {
  constexpr size_t kPieceBytes = 1 << 20;
  MILLRACE_ASSIGN_OR_RETURN(const UniqueFd file, OpenBeneath(root, path));
  const std::string what = absl::StrCat(root, "/", path);
  std::string text;
  for (;;) {
    const size_t size = text.size();
    text.resize(std::min(size + kPieceBytes, most + 1));
    const ssize_t got = read(file.get(), text.data() + size, text.size() - size);
    text.resize(size + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("reading ", what));
    if (got == 0) return text;
    if (text.size() > most) {
      return absl::OutOfRangeError(absl::StrCat(what, ": larger than ", most, " bytes"));
    }
  }
}

}  // namespace millrace
