// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/metadata.h"
#include "client/request.h"
#include "client/response.h"
#include "client/retry_policy.h"
#include "client/stream.h"

namespace millrace {
inline namespace client {

// Files in PEM. They are read when the client connects; one that connects later reads them anew.
struct TlsOptions {
  // Authorities, one of which must have signed the server's certificate. Empty: the system's.
  std::string ca_file = {};
  // The client's own certificate and its key, where the server demands one; else both empty.
  std::string certificate_file = {};
  std::string key_file = {};
};

// How a Client reaches its server.
struct ClientOptions {
  // With TLS, where it is set. The server's certificate must be for the host of the address.
  std::optional<TlsOptions> tls = std::nullopt;
  // A file whose first line is the token that every call and stream brings
  // (`authorization: Bearer ...`). It is read again when it is older than ten seconds, so that it
  // can be changed while the client runs. Empty: none. Beyond your own machine a token needs TLS.
  std::string token_file = {};
  // Sent with every call and stream.
  Metadata metadata = {};
  // How long Connect() waits for the server; zero: it doesn't wait, and the first call connects.
  absl::Duration connect_timeout = absl::Seconds(5);
  // How often a connection that is in use but silent is checked, and how long an answer to the
  // check may take; then its calls fail with UNAVAILABLE. A gRPC server that was not told
  // otherwise drops clients that check more often than every five minutes.
  absl::Duration keepalive_time = absl::Minutes(6);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  // For unary calls; streams have StreamOptions::reconnect_timeout.
  RetryPolicy retry = {};
};

// What may differ from call to call.
struct CallOptions {
  // Over all attempts and the waits between them; then the call ends with DEADLINE_EXCEEDED.
  absl::Duration timeout = absl::InfiniteDuration();
  Metadata metadata = {};
};

// One line of the server's repository index.
struct ModelStatus {
  std::string name;
  std::string version;
  std::string state;   // READY, UNAVAILABLE, LOADING, UNLOADING
  std::string reason;  // why it is not READY
};

// A model's inputs or outputs: name, datatype and dims; -1 stands for any size, and a model that
// batches has a leading -1 for the rows.
struct TensorMetadata {
  std::string name;
  std::string datatype;
  std::vector<int64_t> shape;
};

// What a model takes and returns.
struct ModelMetadata {
  std::string name;
  std::vector<std::string> versions;
  std::string platform;
  std::vector<TensorMetadata> inputs;
  std::vector<TensorMetadata> outputs;
};

// A connection to one Millrace server (or any other that speaks KServe v2 over gRPC).
// Thread-safe: share one Client between all threads. Its streams may outlive it.
//
// Errors are the server's canonical codes and messages: INVALID_ARGUMENT for an input that doesn't
// fit the model, NOT_FOUND for an unknown model, RESOURCE_EXHAUSTED for a full queue, UNAVAILABLE
// for a server that is not there or shutting down.
//
// First statement of main: on Debian's packages a program that uses gRPC should begin with
//   absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  //
//   absl/synchronization/mutex.h
// Debian builds abseil with deadlock detection, so that every lock inside gRPC takes one lock of
// the whole process, and a cycle seen where there is none aborts the process.
class Client {
 public:
  // Connects to `address`: "host:port" ("127.0.0.1:8001", "[::1]:8001") or "unix:/path".
  // INVALID_ARGUMENT when it is neither, and when a file of the options can't be used; UNAVAILABLE
  // when nobody answers within `options.connect_timeout`.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const std::string& address,
                                                         ClientOptions options = {});
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Runs one request and waits for its answer. Retries as ClientOptions::retry says.
  absl::StatusOr<Response> Infer(Request request, const CallOptions& options = {});

  // Opens a stream of requests that are answered in order. Returns at once: an error of the
  // connection comes with the answers.
  std::unique_ptr<Stream> OpenStream(StreamOptions options = {});

  // Whether the standard health service reports SERVING for `service`: a model's name, or "" for
  // the whole server. NOT_FOUND for a name that the server doesn't know. Doesn't retry.
  absl::StatusOr<bool> IsServing(const std::string& service, const CallOptions& options = {});

  // Every version of every model in the server's repositories.
  absl::StatusOr<std::vector<ModelStatus>> ListModels(const CallOptions& options = {});

  // What `model` takes and returns; an empty `version` means the newest one that is ready.
  absl::StatusOr<ModelMetadata> DescribeModel(const std::string& model,
                                              const std::string& version = "",
                                              const CallOptions& options = {});

 private:
  struct Connection;
  Client(std::unique_ptr<Connection> connection, ClientOptions options);

  const std::unique_ptr<Connection> connection_;
  const ClientOptions options_;
};

}  // namespace client
}  // namespace millrace
