// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/listener_credentials.h"

#include <vector>

#include "absl/container/inlined_vector.h"
#include "grpc/grpc.h"
#include "server/base/check.h"

namespace millrace {
namespace {

absl::string_view TextOf(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

}  // namespace

ListenerCredentials::ListenerCredentials(Options options) : options_(std::move(options)) {
  if (options_.tls) {
    const auto demand = options_.store->demands_certificates()
                            ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                            : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
    credentials_ = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(demand, FetchCertificate,
                                                                        this));
  } else {
    credentials_ = grpc_insecure_server_credentials_create();
  }
  if (options_.check == nullptr) return;
  grpc_server_credentials_set_auth_metadata_processor(
      credentials_, {.process = CheckCall, .destroy = nullptr, .state = this});
}

ListenerCredentials::~ListenerCredentials() { grpc_server_credentials_release(credentials_); }

void ListenerCredentials::SetAuthMetadataProcessor(
    const std::shared_ptr<grpc::AuthMetadataProcessor>& /*processor*/) {
  MILLRACE_CHECK(false, "A listener's calls are looked at by its CallerCheck.");
}

int ListenerCredentials::AddPortToServer(const std::string& address, grpc_server* server) {
  return grpc_server_add_http2_port(server, address.c_str(), credentials_);
}

grpc_ssl_certificate_config_reload_status ListenerCredentials::FetchCertificate(
    void* self, grpc_ssl_server_certificate_config** config) {
  auto& credentials = *static_cast<ListenerCredentials*>(self);
  auto now = credentials.options_.store->certificate();
  if (now == credentials.fetched_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair = {.private_key = now->key.c_str(),
                                           .cert_chain = now->chain.c_str()};
  // gRPC insists on authorities, also where no certificate is asked for: then they are for nothing.
  const std::string& authorities =
      now->client_authorities.empty() ? now->chain : now->client_authorities;
  *config = grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
  if (*config == nullptr) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
  credentials.fetched_ = std::move(now);
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

void ListenerCredentials::CheckCall(void* self, grpc_auth_context* context,
                                    const grpc_metadata* metadata, size_t count,
                                    grpc_process_auth_metadata_done_cb done, void* argument) {
  const Options& options = static_cast<ListenerCredentials*>(self)->options_;
  absl::string_view path;
  absl::InlinedVector<absl::string_view, 1> authorization;
  const grpc_metadata* secret = nullptr;
  for (size_t i = 0; i < count; ++i) {
    const absl::string_view key = TextOf(metadata[i].key);
    if (key == ":path") path = TextOf(metadata[i].value);
    if (key != "authorization") continue;
    authorization.push_back(TextOf(metadata[i].value));
    secret = &metadata[i];
  }
  absl::InlinedVector<absl::string_view, 4> names;
  grpc_auth_property_iterator each =
      grpc_auth_context_find_properties_by_name(context, GRPC_X509_SAN_PROPERTY_NAME);
  while (const grpc_auth_property* const name = grpc_auth_property_iterator_next(&each)) {
    names.emplace_back(name->value, name->value_length);
  }
  const auto tokens = options.store->tokens();
  const absl::Status status =
      options.check->Check(path, {.names = names, .authorization = authorization}, tokens.get());
  if (status.ok()) {
    // Nobody behind the door sees the token.
    return done(argument, secret, secret != nullptr ? 1 : 0, nullptr, 0, GRPC_STATUS_OK, nullptr);
  }
  auto& counter = absl::IsUnauthenticated(status) ? options.denied->unauthenticated
                                                  : options.denied->permission_denied;
  counter.fetch_add(1, std::memory_order_relaxed);
  done(argument, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
       std::string(status.message()).c_str());
}

}  // namespace millrace
