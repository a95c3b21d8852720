// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/latency_histogram.h"
#include "client/cli/progress_bar.h"
#include "client/cli/session.h"
#include "client/response.h"
#include "client/video/live_source.h"

namespace millrace {
inline namespace client {

// What an answer says of its frame, and when it came.
struct FrameAnswer {
  int64_t frame = 0;
  double pts = 0;                          // Seconds.
  std::optional<int64_t> connection = {};  // Of live sources.
  absl::Duration latency;
  absl::StatusOr<Response> response;
};

// Prints the answers of all sources as they come, and counts them. Thread-safe.
class FrameLog {
 public:
  // `sources` are their names, for people; `total` frames come of all, 0 where that isn't known.
  FrameLog(const Session& session, bool json, std::vector<std::string> sources, int64_t total);

  void Sent(int source, size_t bytes);
  void Answered(int source, const FrameAnswer& answer);

  // Says something of a source on stderr.
  void Tell(int source, const std::string& what);

  // Prints the summary of a source that has ended; of a live one with what became of its frames.
  void Finish(int source, const std::optional<LiveSource::Counts>& live);
  // Prints that of all sources together, where there are several.
  void FinishAll();

  // Answers with errors, but for frames that were dropped.
  int64_t errors() const;

 private:
  struct Tally {
    int64_t sent = 0;
    int64_t dropped = 0;  // By the server.
    int64_t errors = 0;
    double bytes = 0;
    LatencyHistogram latencies;  // But for dropped frames.

    void Add(const Tally& other);
  };

  static std::string Summary(const Tally& tally, absl::Time start, absl::Time now);
  Tally Sum() const;

  const Session& session_;
  const bool json_;
  const std::vector<std::string> names_;
  mutable std::mutex mutex_;
  absl::Time start_ = absl::InfiniteFuture();  // When the first frame was sent.
  ProgressBar progress_;
  int64_t answered_ = 0;
  std::vector<Tally> tallies_;  // By source.
};

}  // namespace client
}  // namespace millrace
