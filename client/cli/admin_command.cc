// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/cli/session.h"
#include "client/credentials.h"
#include "client/wire.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "proto/admin.grpc.pb.h"

namespace millrace {
inline namespace client {
namespace {

struct AdminOptions {
  std::string model;
  std::string version;
  int replicas = 1;
  double timeout_seconds = 60;
};

// One call to the service; a connection that doesn't come about in time is an error of its own.
class AdminCall {
 public:
  AdminCall(const Session& session, const AdminOptions& options) {
    const ClientOptions reached = session.Options();
    const auto credentials = ChannelCredentials(reached.tls);
    status_ = credentials.status();
    if (!status_.ok()) return;
    channel_ = grpc::CreateChannel(session.url, *credentials);
    stub_ = v1::Admin::NewStub(channel_);
    status_ = CheckMetadata(reached.metadata);
    if (!status_.ok()) return;
    AddMetadata(reached.metadata, context_);
    if (!reached.token_file.empty()) {
      status_ = TokenFile(reached.token_file).AddTo(context_);
      if (!status_.ok()) return;
    }
    const absl::Duration patience = absl::Seconds(session.connect_timeout_seconds);
    connected_ = channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + patience));
    context_.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(options.timeout_seconds)));
  }

  // Makes the call and prints what `print` says of its response; returns the exit code.
  template <typename Method, typename Request, typename Response, typename Print>
  int Run(const Session& session, Method method, const Request& request, Response response,
          Print print) {
    if (!status_.ok()) return session.Fail(status_, kBadArguments);
    if (!connected_) {
      return session.Fail(
          absl::UnavailableError(absl::StrCat("nobody takes operators' calls at ", session.url,
                                              "; see the server's flag --admin-listen")),
          kCannotConnect);
    }
    const grpc::Status status = (stub_.get()->*method)(&context_, request, &response);
    if (!status.ok()) {
      return session.Fail(
          absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message()),
          kCallFailed);
    }
    print(response);
    return kSuccess;
  }

 private:
  absl::Status status_;  // Of the files.
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Admin::Stub> stub_;
  grpc::ClientContext context_;
  bool connected_ = false;
};

template <typename Request>
Request Naming(const AdminOptions& options) {
  Request request;
  request.set_model(options.model);
  request.set_version(options.version);
  return request;
}

void Print(const v1::ListReplicasResponse& response, std::ostream& out) {
  for (const v1::ModelReplicas& model : response.models()) {
    out << absl::StrFormat("%s version %s: %d of at most %d replicas\n", model.model(),
                           model.version(), model.replicas_size(), model.most());
    for (const v1::Replica& replica : model.replicas()) {
      const std::string cpus = replica.cpus().empty()
                                   ? "any core"
                                   : absl::StrCat("cores ", absl::StrJoin(replica.cpus(), ","));
      const std::string state = !replica.ready() ? replica.reason()
                                : replica.busy_ns() > 0
                                    ? absl::StrFormat("busy for %.1f ms", replica.busy_ns() / 1e6)
                                    : "idle";
      out << absl::StrFormat("  %-3d pid %-8d %-6s %s, %d %s: %s\n", replica.index(), replica.pid(),
                             replica.device(), cpus, replica.threads(),
                             replica.threads() == 1 ? "thread" : "threads", state);
    }
  }
}

using Options = std::shared_ptr<AdminOptions>;
using Stub = v1::Admin::Stub;

void AddModel(CLI::App& command, const Options& options) {
  command.add_option("model", options->model, "The model's name")->required();
  command.add_option("--model-version", options->version, "Default: the newest that is loaded");
}

CLI::App& AddAction(CLI::App& admin, const char* name, const char* description) {
  CLI::App& action = *admin.add_subcommand(name, description);
  action.fallthrough();  // So that --url may come after it.
  return action;
}

}  // namespace

void AddAdminCommand(Session& session) {
  const auto options = std::make_shared<AdminOptions>();
  CLI::App* admin = session.AddCommand(
      "admin", "List, grow, shrink and restart replicas, and end a server in order",
      "  millrace admin --url unix:/run/millrace-admin.sock list\n"
      "  millrace admin --url unix:/run/millrace-admin.sock resize detector 4\n"
      "  millrace admin --url unix:/run/millrace-admin.sock restart detector\n"
      "  millrace admin --url unix:/run/millrace-admin.sock drain\n\n"
      "The address is the one that the server was given as --admin-listen");
  admin->require_subcommand(1);
  admin->add_option("--timeout", options->timeout_seconds, "Seconds to wait for the answer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);

  CLI::App& list = AddAction(*admin, "list", "Show every replica");
  list.add_option("model", options->model, "Of this model only");
  list.callback([&session, options] {
    session.exit_code =
        AdminCall(session, *options)
            .Run(session, &Stub::ListReplicas, Naming<v1::ListReplicasRequest>(*options),
                 v1::ListReplicasResponse(),
                 [&](const auto& response) { Print(response, session.out); });
  });

  CLI::App& resize = AddAction(*admin, "resize", "Give a model a number of replicas");
  AddModel(resize, options);
  resize.add_option("replicas", options->replicas, "How many")->required();
  resize.callback([&session, options] {
    auto request = Naming<v1::ResizeRequest>(*options);
    request.set_replicas(options->replicas);
    session.exit_code =
        AdminCall(session, *options)
            .Run(session, &Stub::Resize, request, v1::ResizeResponse(), [&](const auto& response) {
              session.out << options->model << ": " << options->replicas << " replicas instead of "
                          << response.before() << "\n";
            });
  });

  CLI::App& restart = AddAction(*admin, "restart", "Replace a model's replicas by new ones");
  AddModel(restart, options);
  restart.callback([&session, options] {
    session.exit_code = AdminCall(session, *options)
                            .Run(session, &Stub::Restart, Naming<v1::RestartRequest>(*options),
                                 v1::RestartResponse(), [&](const auto& response) {
                                   session.out << options->model << ": " << response.restarted()
                                               << " replicas restarted\n";
                                 });
  });

  CLI::App& drain = AddAction(*admin, "drain", "Have the server end in order, as SIGTERM does");
  drain.callback([&session, options] {
    session.exit_code = AdminCall(session, *options)
                            .Run(session, &Stub::Drain, v1::DrainRequest(), v1::DrainResponse(),
                                 [&](const auto&) { session.out << "the server is ending\n"; });
  });
}

}  // namespace client
}  // namespace millrace
