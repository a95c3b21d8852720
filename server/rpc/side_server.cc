// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/side_server.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/base/status.h"

namespace millrace {

absl::Status SideServer::Listen(Listeners::Options options, const Door& door,
                                grpc::ServerBuilder& builder) {
  queues_.Add(builder, 1);
  MILLRACE_ASSIGN_OR_RETURN(listeners_, Listeners::Open(std::move(options), door, builder));
  return absl::OkStatus();
}

absl::Status SideServer::Serve(grpc::ServerBuilder& builder,
                               const std::function<void(grpc::ServerCompletionQueue*)>& start) {
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) return absl::InternalError("gRPC did not start; its log says why");
  start(queues_.all()[0].get());
  queues_.Serve();
  return listeners_->Start();
}

void SideServer::Stop() {
  if (listeners_ != nullptr) listeners_->Close();
  if (server_ != nullptr) server_->Shutdown(absl::ToChronoTime(WallTime()));
  MILLRACE_CHECK(gate_.Close(Clock::Real(), absl::InfiniteFuture()),
                 "A call did not come back after its server was shut down.");
  server_.reset();
  listeners_.reset();
  queues_.Shutdown();
}

}  // namespace millrace
