// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/live_source.h"

#include <algorithm>
#include <random>
#include <utility>

#include "client/video/reconnect_backoff.h"

namespace millrace {
inline namespace client {

LiveSource::LiveSource(Open open, Options options)
    : open_(std::move(open)), options_(std::move(options)), thread_([this] { Run(); }) {}

LiveSource::~LiveSource() {
  Stop();
  thread_.join();
}

absl::StatusOr<std::optional<VideoFrame>> LiveSource::Next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return newest_.has_value() || stopped_ || end_.has_value(); });
  if (stopped_) return std::optional<VideoFrame>();
  if (newest_.has_value()) return std::exchange(newest_, std::nullopt);
  if (!end_->ok()) return *end_;
  return std::optional<VideoFrame>();
}

void LiveSource::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

LiveSource::Counts LiveSource::counts() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

bool LiveSource::stopped() const {
  std::lock_guard lock(mutex_);
  return stopped_;
}

void LiveSource::Run() {
  ReconnectBackoff backoff(options_.first_wait, options_.most_wait);
  std::minstd_rand random(std::random_device{}());
  for (;;) {
    const int64_t before = connections_;
    absl::Status status = ReadConnection();
    if (connections_ > before) backoff.Reset();
    if (stopped() || !options_.reconnects) {
      std::lock_guard lock(mutex_);
      end_ = std::move(status);
      return changed_.notify_all();
    }
    const absl::Duration wait = backoff.Next(std::generate_canonical<double, 32>(random));
    if (status.ok()) status = absl::UnavailableError("the source ended");
    if (options_.on_lost) options_.on_lost(status, wait);
    if (options_.wait) {
      options_.wait(wait);
    } else {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, absl::ToChronoMilliseconds(wait), [this] { return stopped_; });
    }
  }
}

absl::Status LiveSource::ReadConnection() {
  const auto source = open_([this] { return stopped(); });
  if (!source.ok()) return source.status();
  absl::Duration offset;  // From the connection's timestamps to ours.
  for (bool first = true; !stopped(); first = false) {
    auto frame = (*source)->Next();
    if (!frame.ok()) return frame.status();
    if (!frame->has_value()) return absl::OkStatus();
    if (first) {
      const absl::Time now = options_.now();
      if (!begin_.has_value()) begin_ = now;
      offset =
          std::max(now - *begin_, last_timestamp_ + absl::Milliseconds(1)) - (*frame)->timestamp;
      ++connections_;
    }
    (*frame)->timestamp += offset;
    Put(**std::move(frame));
  }
  return absl::OkStatus();
}

void LiveSource::Put(VideoFrame frame) {
  // A source that sets its clock back keeps its order.
  frame.timestamp = std::max(frame.timestamp, last_timestamp_ + absl::Milliseconds(1));
  last_timestamp_ = frame.timestamp;
  frame.connection = connections_ - 1;
  std::lock_guard lock(mutex_);
  frame.index = counts_.read++;
  counts_.reconnects = frame.connection;
  counts_.dropped += newest_.has_value() ? 1 : 0;
  newest_ = std::move(frame);
  changed_.notify_all();
}

}  // namespace client
}  // namespace millrace
