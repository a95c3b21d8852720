// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "grpc/grpc_security.h"
#include "grpcpp/security/server_credentials.h"
#include "server/access/caller_check.h"
#include "server/access/credentials_store.h"

namespace millrace {

// Calls that were denied, for the metrics.
struct DeniedCalls {
  std::atomic<uint64_t> unauthenticated{0};
  std::atomic<uint64_t> permission_denied{0};
};

// How a listener secures its connections, and who may call what over them: the only place through
// which every call of a listener passes, also one of a method that nobody has registered. Lives as
// long as the server that it was given to.
class ListenerCredentials final : public grpc::ServerCredentials {
 public:
  struct Options {
    const CredentialsStore* store = nullptr;
    bool tls = false;  // TLS 1.2 or 1.3, by the store's certificate as it is at each handshake.
    // Null: calls aren't looked at, which spares them a microsecond.
    std::shared_ptr<const CallerCheck> check = nullptr;
    DeniedCalls* denied = nullptr;
  };

  explicit ListenerCredentials(Options options);
  ~ListenerCredentials() override;

  // grpc::ServerCredentials. There is a processor of our own.
  void SetAuthMetadataProcessor(
      const std::shared_ptr<grpc::AuthMetadataProcessor>& processor) override;

 private:
  static grpc_ssl_certificate_config_reload_status FetchCertificate(
      void* self, grpc_ssl_server_certificate_config** config);
  static void CheckCall(void* self, grpc_auth_context* context, const grpc_metadata* metadata,
                        size_t count, grpc_process_auth_metadata_done_cb done, void* argument);

  int AddPortToServer(const std::string& address, grpc_server* server) override;

  const Options options_;
  // What the last handshake has used. gRPC fetches under a lock of its own.
  std::shared_ptr<const ServerCertificate> fetched_;
  grpc_server_credentials* credentials_;
};

}  // namespace millrace
