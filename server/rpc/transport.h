// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "grpcpp/server_builder.h"

namespace millrace {

// How the server's side of gRPC is set up; apart, so that benchmarks compare with a bare gRPC
// server of the very same settings.

// Pending accepts per queue: enough for a burst, few enough that gRPC's bookkeeping stays cheap.
inline constexpr int kUnaryAccepts = 16;
inline constexpr int kStreamAccepts = 4;
inline constexpr int kControlAccepts = 1;

inline void SetTransport(grpc::ServerBuilder& builder, int max_message_bytes) {
  builder.SetMaxReceiveMessageSize(max_message_bytes);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // A taken port is an error.
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  // Clients behind balancers keep connections alive by pings; a ping every ten seconds is no abuse.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
}

}  // namespace millrace
