// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "server/metrics/sample.h"
#include "server/metrics/sharded.h"

namespace millrace {

// The versions this server was built and runs with.
struct BuildVersions {
  std::string millrace;
  std::string grpc;
  std::string libtorch;
};

// The two ways in which requests come.
enum class InferRpc { kModelInfer, kModelStreamInfer };

// What the server does that belongs to no single model. Thread-safe; its methods take no lock and
// allocate nothing.
class ServerMetrics {
 public:
  explicit ServerMetrics(BuildVersions versions);

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

  // A request named a model or version that is not served.
  void UnknownModel() { shards_.Local().unknown_models.Add(); }

  // Every series of the server's own, for a scrape.
  std::vector<Sample> Collect() const;

 private:
  static constexpr size_t kRpcs = 2;

  struct Shard {
    Counter streams_opened, streams_closed;
    std::array<Counter, kRpcs> received, finished;
    Counter unknown_models;
    Counter stream_bytes_taken, stream_bytes_freed;
  };

  const BuildVersions versions_;
  Sharded<Shard> shards_;
};

}  // namespace millrace
