// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/text_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "server/base/unique_fd.h"

namespace millrace {

std::optional<std::string> ReadTextFile(const std::filesystem::path& path) {
  constexpr size_t kMaxBytes = 1 << 20;
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return std::nullopt;
  std::string text;
  char piece[4096];
  while (text.size() < kMaxBytes) {
    const ssize_t count = ::read(file.get(), piece, sizeof(piece));
    if (count < 0) return std::nullopt;
    if (count == 0) break;
    text.append(piece, static_cast<size_t>(count));
  }
  return text;
}

}  // namespace millrace
