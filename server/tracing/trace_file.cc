// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tracing/trace_file.h"

#include <cerrno>
#include <utility>

#include "server/base/log.h"
#include "server/base/status.h"
#include "server/tracing/chrome_trace.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<TraceFile>> TraceFile::Create(const std::string& path,
                                                             int64_t most_bytes, Clock& clock) {
  std::FILE* const file = std::fopen(path.c_str(), "we");
  if (file == nullptr) return ErrnoStatus(errno, path);
  return std::unique_ptr<TraceFile>(new TraceFile(file, path, most_bytes, clock.Now()));
}

TraceFile::TraceFile(std::FILE* file, std::string path, int64_t most_bytes, absl::Time origin)
    : file_(file), path_(std::move(path)), most_bytes_(most_bytes), origin_(origin) {
  thread_ = std::make_unique<Thread>("trace", [this] { Run(); });
}

TraceFile::~TraceFile() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.reset();
  std::fclose(file_);
}

void TraceFile::Add(TracedRequest request) {
  MutexLock lock(mutex_);
  if (full_ || waiting_.size() >= kMostWaiting) return Drop(1);
  waiting_.push_back(std::move(request));
  changed_.NotifyOne();
}

void TraceFile::Run() {
  ChromeTrace trace(origin_);
  std::string text = trace.Begin();
  int64_t written = 0;
  for (bool more = true; more;) {
    std::deque<TracedRequest> requests;
    {
      MutexLock lock(mutex_);
      while (waiting_.empty() && !stopping_) changed_.Wait(mutex_);
      requests.swap(waiting_);
      more = !requests.empty() || !stopping_;
    }
    size_t taken = 0;
    for (; taken < requests.size() && written < most_bytes_; ++taken) {
      text += trace.Events(requests[taken]);
      written += static_cast<int64_t>(text.size());
      std::fwrite(text.data(), 1, text.size(), file_);
      text.clear();
    }
    Drop(requests.size() - taken);
    if (!more) text += trace.End();
    std::fwrite(text.data(), 1, text.size(), file_);
    text.clear();
    const bool failed = std::fflush(file_) != 0 || std::ferror(file_) != 0;
    if (!failed && written < most_bytes_) continue;
    MutexLock lock(mutex_);
    if (std::exchange(full_, true)) continue;
    LogWarning(path_, failed ? " can't be written: no further request is traced"
                             : " is full: no further request is traced");
  }
}

}  // namespace millrace
