// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/metrics/histogram.h"
#include "server/metrics/sample.h"
#include "server/metrics/sharded.h"
#include "server/metrics/stream_metrics.h"

namespace millrace {

// The versions this server was built and runs with.
struct BuildVersions {
  std::string millrace;
  std::string grpc;
  std::string libtorch;
  std::string commit;  // Of the source; `unknown` where nobody knew.
};

// The two ways in which requests come.
enum class InferRpc { kModelInfer, kModelStreamInfer };

// What the server does that belongs to no single model. Thread-safe; but for streams(), its
// methods take no lock and allocate nothing.
class ServerMetrics {
 public:
  // Streams of at most `most_stream_names` names have series of their own.
  explicit ServerMetrics(BuildVersions versions, size_t most_stream_names = 64);

  // A stream begins; each ends with exactly one StreamClosed().
  void StreamOpened() { shards_.Local().streams_opened.Add(); }
  void StreamClosed() { shards_.Local().streams_closed.Add(); }

  // A request was read; each ends with exactly one RequestFinished().
  void RequestReceived(InferRpc rpc) { shards_.Local().received[static_cast<size_t>(rpc)].Add(); }

  // A request was answered, or its client is gone.
  void RequestFinished(InferRpc rpc) { shards_.Local().finished[static_cast<size_t>(rpc)].Add(); }

  // A stream holds so many bytes more, or fewer where `change` is negative.
  void StreamHolds(int64_t change) {
    Shard& shard = shards_.Local();
    if (change > 0) shard.stream_bytes_taken.Add(static_cast<uint64_t>(change));
    if (change < 0) shard.stream_bytes_freed.Add(static_cast<uint64_t>(-change));
  }

  // An answer of a stream was written to its client.
  void AnswerWritten() { shards_.Local().written.Add(); }

  // An answer of a stream is there. Each leaves by one of the two that follow.
  void AnswerDecided() { shards_.Local().decided.Add(); }

  // Its turn has come, and it is on its way to the client.
  void AnswerLeft(absl::Duration waited) {
    Shard& shard = shards_.Local();
    shard.left.Add();
    shard.head_of_line_wait.Observe(absl::ToInt64Nanoseconds(waited));
  }

  // So many answers have nobody to go to: their stream has ended.
  void AnswersDropped(uint64_t count) { shards_.Local().left.Add(count); }

  // What streams did, by their names.
  StreamMetrics& streams() { return streams_; }

  // When the certificate expires that clients are shown; the earliest, where there are several.
  // Until it is told, no scrape shows it.
  void SetTlsCertificateExpiry(absl::Time when) {
    tls_expiry_s_.store(absl::ToUnixSeconds(when), std::memory_order_relaxed);
  }

  // A request named a model or version that is not served.
  void UnknownModel() { shards_.Local().unknown_models.Add(); }

  // Every series of the server's own, for a scrape.
  std::vector<Sample> Collect() const;

 private:
  static constexpr size_t kRpcs = 2;

  struct Shard {
    Counter streams_opened, streams_closed;
    std::array<Counter, kRpcs> received, finished;
    Counter written, decided, left;
    Histogram head_of_line_wait{kDurationBounds};
    Counter unknown_models;
    Counter stream_bytes_taken, stream_bytes_freed;
  };

  const BuildVersions versions_;
  Sharded<Shard> shards_;
  StreamMetrics streams_;
  std::atomic<int64_t> tls_expiry_s_{0};  // Since 1970; 0: there is no certificate.
};

}  // namespace millrace
