// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/open_streams.h"

#include "server/rpc/infer_stream.h"

namespace millrace {

bool OpenStreams::Add(const std::shared_ptr<InferStream>& stream) {
  bool draining;
  {
    MutexLock lock(mutex_);
    if (streams_.size() >= limit_) return false;
    streams_.emplace(stream.get(), stream);
    draining = draining_;
  }
  if (draining) stream->DrainAtOnce();
  return true;
}

void OpenStreams::Remove(const InferStream* stream) {
  MutexLock lock(mutex_);
  streams_.erase(stream);
  removed_.NotifyAll();
}

bool OpenStreams::Drain() {
  std::vector<std::shared_ptr<InferStream>> open;
  {
    MutexLock lock(mutex_);
    draining_ = true;
    for (const auto& [identity, stream] : streams_) {
      if (auto alive = stream.lock()) open.push_back(std::move(alive));
    }
  }
  for (const auto& stream : open) stream->Drain();
  return !open.empty();
}

std::vector<StreamGlance> OpenStreams::Look(size_t most, size_t* open) const {
  std::vector<std::shared_ptr<InferStream>> seen;
  {
    MutexLock lock(mutex_);
    *open = streams_.size();
    for (auto each = streams_.begin(); each != streams_.end() && seen.size() < most; ++each) {
      if (auto alive = each->second.lock()) seen.push_back(std::move(alive));
    }
  }
  std::vector<StreamGlance> glances;
  glances.reserve(seen.size());
  for (const auto& stream : seen) glances.push_back(stream->Look());
  return glances;
}

void OpenStreams::WaitUntilNone(Clock& clock, absl::Time deadline) {
  MutexLock lock(mutex_);
  while (!streams_.empty() && clock.Now() < deadline) {
    clock.WaitUntil(removed_, mutex_, deadline);
  }
}

}  // namespace millrace
