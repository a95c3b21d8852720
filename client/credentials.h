// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "grpcpp/client_context.h"
#include "grpcpp/security/credentials.h"

namespace millrace {
inline namespace client {

// How a channel is secured; nullopt: it isn't. INVALID_ARGUMENT names a file that can't be used.
// Not installed.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentials(
    const std::optional<TlsOptions>& tls);

// A token that lies in a file, and is read again when it is older than kFresh. Not installed.
// Thread-safe.
class TokenFile {
 public:
  static constexpr absl::Duration kFresh = absl::Seconds(10);

  explicit TokenFile(std::string path) : path_(std::move(path)) {}

  // The first line of the file. While the file can't be read, what it said last stays good; where
  // it never said anything, UNAUTHENTICATED says why.
  absl::StatusOr<std::string> Get();

  // Has a call bring it.
  absl::Status AddTo(grpc::ClientContext& context);

 private:
  const std::string path_;
  std::mutex mutex_;
  std::string token_;
  absl::Time read_at_ = absl::InfinitePast();
};

}  // namespace client
}  // namespace millrace
