// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/client.h"

#include <optional>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/credentials.h"
#include "client/stream_call.h"
#include "client/wire.h"
#include "grpcpp/grpcpp.h"
#include "proto/grpc_service.grpc.pb.h"
#include "proto/health.grpc.pb.h"

namespace millrace {
inline namespace client {
namespace {

absl::Status CheckAddress(const std::string& address) {
  const auto invalid = [&](const char* what) {
    return absl::InvalidArgumentError(absl::StrCat("address '", address, "' ", what,
                                                   "; write host:port, such as 127.0.0.1:8001, "
                                                   "or unix:/path"));
  };
  if (absl::StartsWith(address, "unix:")) {
    return address.size() > 5 ? absl::OkStatus() : invalid("has no path");
  }
  if (absl::StrContains(address, "://")) return invalid("has a scheme");
  const size_t colon = address.rfind(':');
  if (colon == 0 || colon == std::string::npos) return invalid("has no host or no port");
  const std::string port = address.substr(colon + 1);
  const bool is_number = !port.empty() && port.size() <= 5 &&
                         port.find_first_not_of("0123456789") == std::string::npos;
  return is_number ? absl::OkStatus() : invalid("has no port number");
}

grpc::ChannelArguments ChannelArguments(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // the server's limit is the one that holds
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_time)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_timeout)));
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  return arguments;
}

std::optional<std::string> Pushback(const grpc::ClientContext& context) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto pushback = trailers.find("grpc-retry-pushback-ms");
  if (pushback == trailers.end()) return std::nullopt;
  return std::string(pushback->second.data(), pushback->second.size());
}

double Jitter() {
  thread_local std::minstd_rand random(std::random_device{}());
  return std::uniform_real_distribution<double>(0, 1)(random);
}

std::vector<TensorMetadata> FromMessages(
    const google::protobuf::RepeatedPtrField<inference::ModelMetadataResponse::TensorMetadata>&
        messages) {
  std::vector<TensorMetadata> tensors;
  for (const auto& message : messages) {
    tensors.push_back(
        {message.name(), message.datatype(), {message.shape().begin(), message.shape().end()}});
  }
  return tensors;
}

}  // namespace

struct Client::Connection {
  std::shared_ptr<grpc::Channel> channel;
  std::shared_ptr<TokenFile> token;  // Null: none.
  std::unique_ptr<inference::GRPCInferenceService::Stub> inference;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;

  // Calls `method(context)`, a blocking stub call, as often as `retry` says.
  template <typename Method>
  absl::Status Call(const RetryPolicy& retry, const Metadata& metadata, const CallOptions& options,
                    Method method) const {
    if (absl::Status status = CheckMetadata(metadata); !status.ok()) return status;
    if (absl::Status status = CheckMetadata(options.metadata); !status.ok()) return status;
    const absl::Time deadline = absl::Now() + options.timeout;
    for (int attempt = 1;; ++attempt) {
      grpc::ClientContext context;
      if (token != nullptr) {
        if (absl::Status status = token->AddTo(context); !status.ok()) return status;
      }
      AddMetadata(metadata, context);
      AddMetadata(options.metadata, context);
      context.set_deadline(DeadlineAfter(deadline - absl::Now()));
      const absl::Status status = ToAbslStatus(method(context));
      const std::optional<absl::Duration> delay =
          retry.NextDelay(status, attempt, Pushback(context), Jitter());
      if (!delay.has_value() || absl::Now() + *delay >= deadline) return status;
      Wait(*delay, Pushback(context).has_value());
    }
  }

  // Waits for `delay`; where the connection is lost and the server said nothing, only until it is
  // back. Sleeping would not do: gRPC connects only while somebody waits for it.
  void Wait(absl::Duration delay, bool exactly) const {
    if (exactly || channel->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY) {
      absl::SleepFor(delay);
    } else {
      channel->WaitForConnected(DeadlineAfter(delay));
    }
  }
};

Client::Client(std::unique_ptr<Connection> connection, ClientOptions options)
    : connection_(std::move(connection)), options_(std::move(options)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& address,
                                                        ClientOptions options) {
  if (absl::Status status = CheckAddress(address); !status.ok()) return status;
  const auto credentials = ChannelCredentials(options.tls);
  if (!credentials.ok()) return credentials.status();
  auto connection = std::make_unique<Connection>();
  if (!options.token_file.empty()) {
    connection->token = std::make_shared<TokenFile>(options.token_file);
    const absl::StatusOr<std::string> token = connection->token->Get();
    if (!token.ok()) return absl::InvalidArgumentError(token.status().message());
  }
  connection->channel = grpc::CreateCustomChannel(address, *credentials, ChannelArguments(options));
  connection->inference = inference::GRPCInferenceService::NewStub(connection->channel);
  connection->health = grpc::health::v1::Health::NewStub(connection->channel);
  const absl::Duration timeout = options.connect_timeout;
  if (timeout > absl::ZeroDuration() &&
      !connection->channel->WaitForConnected(DeadlineAfter(timeout))) {
    return absl::UnavailableError(absl::StrCat("no server answered at ", address, " within ",
                                               absl::FormatDuration(timeout),
                                               "; is it running, and does it listen there "
                                               "(millrace-server --grpc-listen ",
                                               address, ")", options.tls ? ", with TLS" : "", "?"));
  }
  return std::unique_ptr<Client>(new Client(std::move(connection), std::move(options)));
}

absl::StatusOr<Response> Client::Infer(Request request, const CallOptions& options) {
  const inference::ModelInferRequest message = ToMessage(std::move(request));
  inference::ModelInferResponse response;
  const absl::Status status = connection_->Call(
      options_.retry, options_.metadata, options, [&](grpc::ClientContext& context) {
        return connection_->inference->ModelInfer(&context, message, &response);
      });
  if (!status.ok()) return status;
  return FromMessage(response);
}

std::unique_ptr<Stream> Client::OpenStream(StreamOptions options) {
  options.metadata.insert(options.metadata.begin(), options_.metadata.begin(),
                          options_.metadata.end());
  return std::unique_ptr<Stream>(new Stream(std::make_unique<Stream::Call>(
      connection_->channel, connection_->token, std::move(options))));
}

absl::StatusOr<bool> Client::IsServing(const std::string& service, const CallOptions& options) {
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  request.set_service(service);
  const absl::Status status = connection_->Call(
      {.max_attempts = 1}, options_.metadata, options, [&](grpc::ClientContext& context) {
        return connection_->health->Check(&context, request, &response);
      });
  if (!status.ok()) return status;
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

absl::StatusOr<std::vector<ModelStatus>> Client::ListModels(const CallOptions& options) {
  inference::RepositoryIndexResponse response;
  const absl::Status status = connection_->Call(
      options_.retry, options_.metadata, options, [&](grpc::ClientContext& context) {
        return connection_->inference->RepositoryIndex(&context, {}, &response);
      });
  if (!status.ok()) return status;
  std::vector<ModelStatus> models;
  for (const auto& model : response.models()) {
    models.push_back({model.name(), model.version(), model.state(), model.reason()});
  }
  return models;
}

absl::StatusOr<ModelMetadata> Client::DescribeModel(const std::string& model,
                                                    const std::string& version,
                                                    const CallOptions& options) {
  inference::ModelMetadataRequest request;
  inference::ModelMetadataResponse response;
  request.set_name(model);
  request.set_version(version);
  const absl::Status status = connection_->Call(
      options_.retry, options_.metadata, options, [&](grpc::ClientContext& context) {
        return connection_->inference->ModelMetadata(&context, request, &response);
      });
  if (!status.ok()) return status;
  return ModelMetadata{response.name(),
                       {response.versions().begin(), response.versions().end()},
                       response.platform(),
                       FromMessages(response.inputs()),
                       FromMessages(response.outputs())};
}

}  // namespace client
}  // namespace millrace
