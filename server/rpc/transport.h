// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/time/time.h"
#include "grpcpp/server_builder.h"

namespace millrace {

// How the server's side of gRPC is set up; apart, so that benchmarks compare with a bare gRPC
// server of the very same settings.

// Pending accepts per queue: enough for a burst, few enough that gRPC's bookkeeping stays cheap.
inline constexpr int kUnaryAccepts = 16;
inline constexpr int kStreamAccepts = 4;
inline constexpr int kControlAccepts = 1;

// Cameras sit behind routers that forget a connection on which nothing has moved for a minute or
// less, and say nothing when they do: the server asks after a silent client so often that neither
// happens, and lets clients ask as often.
inline constexpr int kKeepaliveMs = 30'000;         // From the last that was heard to the question.
inline constexpr int kKeepaliveTimeoutMs = 20'000;  // For the answer.
inline constexpr int kQuickestPingsMs = 10'000;     // Clients that ask more often are dropped.

// Calls of one connection that are open at once; more wait at their client.
inline constexpr int kMostCallsPerConnection = 1024;

// From telling a client that its stream is about to end until no more of it is read, where the
// client doesn't half-close.
inline constexpr absl::Duration kNoticePeriod = absl::Seconds(1);

// TLS and the first frames of a connection.
inline constexpr int kHandshakeMs = 20'000;

inline void SetTransport(grpc::ServerBuilder& builder, int max_message_bytes,
                         bool channelz = false) {
  builder.SetMaxReceiveMessageSize(max_message_bytes);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // A taken port is an error.
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, channelz ? 1 : 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMostCallsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kQuickestPingsMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // Streams may be silent.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
}

// How long a stream lives where connections may get `age` old; `spread` is from 0 to 1. gRPC tells
// the client of a connection that it is to use another (GOAWAY) at 0.9 to 1.1 times the age. A
// stream is no older than its connection, so when it ends its client has been told, and goes on
// over another connection.
inline absl::Duration LifeOfStream(absl::Duration age, double spread) {
  return age * (1.15 + 0.1 * spread);
}

// Has clients move on to another connection, and so perhaps to another server, when theirs is `age`
// old. Streams end in order by themselves, as LifeOfStream() says; what is still open so long after
// the last of them, and after `grace`, is cut off.
inline void SetConnectionAge(grpc::ServerBuilder& builder, absl::Duration age,
                             absl::Duration grace) {
  if (age == absl::InfiniteDuration()) return;
  const auto milliseconds = [](absl::Duration duration) {
    return static_cast<int>(
        std::min<int64_t>(absl::ToInt64Milliseconds(duration), std::numeric_limits<int>::max()));
  };
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, milliseconds(age));
  builder.AddChannelArgument(
      GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
      milliseconds(LifeOfStream(age, 1) + kNoticePeriod + grace + absl::Seconds(1)));
}

}  // namespace millrace
