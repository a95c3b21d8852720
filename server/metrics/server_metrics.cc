// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/server_metrics.h"

#include <algorithm>
#include <utility>

namespace millrace {
namespace {

constexpr std::array<const char*, 2> kRpcNames = {"ModelInfer", "ModelStreamInfer"};

// What has begun and not ended. The ends were counted first, so a scrape in between sees too many
// rather than fewer than none.
double Open(uint64_t ended, uint64_t begun) {
  return static_cast<double>(begun - std::min(begun, ended));
}

}  // namespace

ServerMetrics::ServerMetrics(BuildVersions versions, size_t most_stream_names)
    : versions_(std::move(versions)), streams_(most_stream_names) {}

std::vector<Sample> ServerMetrics::Collect() const {
  std::vector<Sample> samples;
  for (size_t rpc = 0; rpc < kRpcs; ++rpc) {
    const uint64_t finished = shards_.Sum([&](const Shard& s) { return s.finished[rpc].value(); });
    const uint64_t received = shards_.Sum([&](const Shard& s) { return s.received[rpc].value(); });
    samples.push_back({&kReceivedTotal, {kRpcNames[rpc]}, static_cast<double>(received)});
    samples.push_back({&kServerInFlight, {kRpcNames[rpc]}, Open(finished, received)});
  }
  const uint64_t closed = shards_.Sum([](const Shard& s) { return s.streams_closed.value(); });
  const uint64_t opened = shards_.Sum([](const Shard& s) { return s.streams_opened.value(); });
  const uint64_t freed = shards_.Sum([](const Shard& s) { return s.stream_bytes_freed.value(); });
  const uint64_t taken = shards_.Sum([](const Shard& s) { return s.stream_bytes_taken.value(); });
  const uint64_t unknown = shards_.Sum([](const Shard& s) { return s.unknown_models.value(); });
  samples.push_back({&kUnknownModelTotal, {}, static_cast<double>(unknown)});
  samples.push_back({&kStreams, {}, Open(closed, opened)});
  samples.push_back({&kStreamsOpenedTotal, {}, static_cast<double>(opened)});
  samples.push_back({&kStreamHeldBytes, {}, Open(freed, taken)});
  const uint64_t left = shards_.Sum([](const Shard& s) { return s.left.value(); });
  const uint64_t decided = shards_.Sum([](const Shard& s) { return s.decided.value(); });
  const uint64_t written = shards_.Sum([](const Shard& s) { return s.written.value(); });
  const uint64_t read = shards_.Sum([](const Shard& s) {
    return s.received[static_cast<size_t>(InferRpc::kModelStreamInfer)].value();
  });
  samples.push_back({&kStreamMessagesTotal, {"read"}, static_cast<double>(read)});
  samples.push_back({&kStreamMessagesTotal, {"written"}, static_cast<double>(written)});
  samples.push_back({&kReorderBuffer, {}, Open(left, decided)});
  HistogramValue wait;
  shards_.ForEach([&](const Shard& s) { s.head_of_line_wait.AddTo(wait, 1e-9); });
  samples.push_back({&kHeadOfLineWait, {}, std::move(wait)});
  for (Sample& sample : streams_.Collect()) samples.push_back(std::move(sample));
  if (const int64_t expiry = tls_expiry_s_.load(std::memory_order_relaxed); expiry != 0) {
    samples.push_back({&kTlsExpiry, {}, static_cast<double>(expiry)});
  }
  samples.push_back({&kBuildInfo,
                     {versions_.millrace, versions_.grpc, versions_.libtorch, versions_.commit},
                     1.0});
  return samples;
}

}  // namespace millrace
