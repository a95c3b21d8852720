// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/worker_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr int kMostReads = 64;  // Of a pipe into which somebody goes on writing.

}  // namespace

absl::StatusOr<std::pair<WorkerOutput, UniqueFd>> WorkerOutput::Create(std::string name) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  UniqueFd ours(fds[0]);
  UniqueFd theirs(fds[1]);
  if (fcntl(ours.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus(errno, "fcntl");
  return std::make_pair(WorkerOutput(std::move(name), std::move(ours)), std::move(theirs));
}

bool WorkerOutput::Read() {
  char piece[16 << 10];
  if (!fd_.valid()) return false;
  const ssize_t size = read(fd_.get(), piece, sizeof(piece));
  if (size > 0) {
    Take({piece, static_cast<size_t>(size)});
    return true;
  }
  if (size == 0 || (errno != EAGAIN && errno != EINTR)) fd_.reset();
  return false;
}

void WorkerOutput::Take(absl::string_view text) {
  for (const char byte : text) {
    if (byte == '\n') {
      EndLine();
    } else if (line_.size() < kMostLineBytes) {
      line_.push_back(byte);
    }
  }
}

void WorkerOutput::EndLine() {
  if (logged_ < kMostLogged) {
    LogInfo(name_, " says: ", line_);
  } else if (logged_ == kMostLogged) {
    LogInfo(name_, " says more, of which the last lines are shown if it dies");
  }
  logged_ = std::min(logged_ + 1, kMostLogged + 1);
  last_.push_back(std::move(line_));
  line_.clear();
  if (last_.size() > kMostKept) last_.pop_front();
}

void WorkerOutput::LogLast(absl::string_view incident) {
  for (int i = 0; i < kMostReads && Read(); ++i) {
  }
  if (!line_.empty()) EndLine();
  for (const std::string& line : last_) LogWarning("incident ", incident, ": it said: ", line);
  last_.clear();
}

std::string NewIncident() {
  static thread_local absl::BitGen random;
  return absl::StrCat(absl::Hex(absl::Uniform<uint32_t>(random), absl::kZeroPad8));
}

}  // namespace millrace
