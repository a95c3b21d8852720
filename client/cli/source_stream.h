// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "client/cli/annotator.h"
#include "client/cli/frame_input.h"
#include "client/cli/frame_log.h"
#include "client/client.h"
#include "client/stream.h"
#include "client/video/live_source.h"
#include "client/video/source_address.h"
#include "client/video/video_frame.h"

namespace millrace {
inline namespace client {

// What the streams of all sources have in common.
struct SourceStreamOptions {
  std::string model = {};
  std::string version = {};
  std::vector<std::string> outputs = {};
  StreamOptions stream = {};
  CaptureFormat capture = {};
  int64_t start = 0;   // The first frame of files.
  int64_t frames = 0;  // 0: all.
  double fps = 0;      // 0: as they come.
  bool realtime = false;
  bool reconnects = true;
  absl::Duration most_wait;  // Between two connections.
};

// One source, its stream of requests, and the two threads that send and take its answers.
// Thread-safe.
//
// Invariants:
//  1. What is said of an answer's frame is what came back with the answer, and is compared with
//     what was sent at its place.
//  2. A frame is kept until its answer is there, and only where it is drawn on.
class SourceStream {
 public:
  // Opens source `number`, if it isn't live: such a one connects when it is started, and again
  // until it can. The references must outlive the stream.
  static absl::StatusOr<std::unique_ptr<SourceStream>> Open(int number, SourceAddress address,
                                                            const SourceStreamOptions& options,
                                                            const FrameInput& input);
  // Waits for both threads.
  ~SourceStream();

  // How many frames will come; 0 where that isn't known.
  int64_t FramesToCome() const;
  double frames_per_second() const { return frames_per_second_; }

  // Begins to stream; `annotator` may be null; `on_end` is called at the end, on another thread.
  void Start(Client& client, FrameLog& log, std::unique_ptr<Annotator> annotator,
             std::function<void()> on_end);

  // Sends no more. Returns at once; the stream ends when what is under way was answered.
  void Stop();

  bool ended() const { return ended_.HasBeenNotified(); }
  // Once it has ended: how reading the source, or what was made of its frames, went wrong, and how
  // the stream did.
  const absl::Status& source_status() const { return source_status_; }
  const absl::Status& stream_status() const { return stream_status_; }

 private:
  struct Sent {
    VideoFrame frame;  // Without its picture where nothing is drawn.
    absl::Time at;
    int width, height;
  };

  SourceStream(int number, SourceAddress address, const SourceStreamOptions& options,
               const FrameInput& input);
  std::unique_ptr<LiveSource> Connect();
  void Run(Client& client);
  absl::Status SendFrames(Stream& stream);
  void TakeAnswer(Answer answer);
  Parameters EchoesFor(const VideoFrame& frame) const;
  bool WaitUntil(absl::Time due);

  const int number_;
  const SourceAddress address_;
  const SourceStreamOptions& options_;
  const FrameInput& input_;
  FrameLog* log_ = nullptr;  // From the start on.
  std::unique_ptr<FrameSource> source_;
  LiveSource* live_ = nullptr;  // The same, where it is live.
  int64_t frame_count_ = 0;
  double frames_per_second_ = 25;
  std::unique_ptr<Annotator> annotator_;
  std::function<void()> on_end_;
  absl::Notification stopped_;
  absl::Notification ended_;
  absl::Status source_status_;
  absl::Status stream_status_;

  std::mutex mutex_;
  int64_t sent_ = 0;
  std::map<int64_t, Sent> under_way_;  // By the request's place in the stream.
  absl::Status annotated_;

  std::thread thread_;
};

}  // namespace client
}  // namespace millrace
