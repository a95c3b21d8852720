// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/video/video_frame.h"

namespace millrace {
inline namespace client {

// A camera, or whatever else has its own pace: a thread reads it without ever waiting for who takes
// its frames, and connects it again when it breaks off. Thread-safe; usually one thread takes.
//
// Invariants:
//  1. At most one frame waits, the newest; each that it takes the place of is counted as dropped.
//  2. Frames are numbered as they were read, over all connections and with the dropped ones.
//  3. Timestamps only grow: within a connection they are the source's own, from the moment on at
//     which its first frame came.
class LiveSource : public FrameSource {
 public:
  // Opens the source; ends soon once `stopped` says so, as do the waits of what it returns.
  using Open = std::function<absl::StatusOr<std::unique_ptr<FrameSource>>(
      const std::function<bool()>& stopped)>;

  struct Options {
    absl::Duration first_wait = absl::Milliseconds(500);
    absl::Duration most_wait = absl::Seconds(10);
    // Otherwise the source ends with its first connection.
    bool reconnects = true;
    // Learns, on the reader's thread, why a connection failed or ended, and how long the reader
    // waits before the next one.
    std::function<void(const absl::Status&, absl::Duration)> on_lost = {};
    // For tests: the time, and a wait that must end early when the source is stopped.
    std::function<absl::Time()> now = [] { return absl::Now(); };
    std::function<void(absl::Duration)> wait = {};
  };

  struct Counts {
    int64_t read = 0;
    int64_t dropped = 0;     // Read, and never taken.
    int64_t reconnects = 0;  // Connections that brought a frame, but for the first.
  };

  LiveSource(Open open, Options options);
  // Stops.
  ~LiveSource() override;

  // The newest frame, once there is one that wasn't taken. Nothing after Stop(); nothing, or the
  // error, at the end of a source that isn't connected again.
  absl::StatusOr<std::optional<VideoFrame>> Next() override;

  // Ends reading. Returns at once.
  void Stop();

  Counts counts() const;

 private:
  void Run();
  // Reads one connection; OK at its end.
  absl::Status ReadConnection();
  void Put(VideoFrame frame);
  bool stopped() const;

  const Open open_;
  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<VideoFrame> newest_;
  Counts counts_;
  bool stopped_ = false;
  std::optional<absl::Status> end_;  // Once no more frames come.

  // The reader's own.
  std::optional<absl::Time> begin_;  // When the first frame came.
  absl::Duration last_timestamp_ = -absl::InfiniteDuration();
  int64_t connections_ = 0;  // Which have brought a frame.

  std::thread thread_;
};

}  // namespace client
}  // namespace millrace
