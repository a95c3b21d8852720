// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <caffe2/serialize/read_adapter_interface.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

namespace millrace {

// Lets libtorch read an archive from a file descriptor, which stays the caller's. Reads at
// positions, so the descriptor's own offset doesn't matter.
class FdReader final : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit FdReader(int fd) : fd_(fd) {
    struct stat file = {};
    if (fstat(fd, &file) != 0) throw std::system_error(errno, std::generic_category(), "fstat");
    size_ = static_cast<size_t>(file.st_size);
  }

  size_t size() const override { return size_; }

  size_t read(uint64_t position, void* to, size_t count, const char* what = "") const override {
    size_t done = 0;
    while (done < count) {
      const ssize_t got = pread(fd_, static_cast<char*>(to) + done, count - done,
                                static_cast<off_t>(position + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw std::system_error(errno, std::generic_category(), what);
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  }

 private:
  const int fd_;
  size_t size_ = 0;
};

}  // namespace millrace
