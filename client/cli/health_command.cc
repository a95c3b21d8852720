// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "client/cli/session.h"

namespace millrace {
inline namespace client {
namespace {

struct HealthOptions {
  std::string service;
  double timeout_seconds = 1;
};

int Run(const Session& session, const HealthOptions& options) {
  const auto client = session.Connect();
  if (absl::IsInvalidArgument(client.status())) return session.Fail(client.status(), kBadArguments);
  if (!client.ok()) return session.Fail(client.status(), kCannotConnect);
  const auto serving =
      (*client)->IsServing(options.service, {.timeout = absl::Seconds(options.timeout_seconds)});
  if (!serving.ok()) return session.Fail(serving.status(), kCallFailed);
  session.out << (*serving ? "SERVING" : "NOT_SERVING") << "\n";
  return *serving ? kSuccess : kNotServing;
}

}  // namespace

void AddHealthCommand(Session& session) {
  const auto options = std::make_shared<HealthOptions>();
  CLI::App* command = session.AddCommand(
      "health",
      "Tell whether the server, or one model, is serving; exit codes of grpc_health_probe",
      "  millrace health                              # exit 0: the server is ready\n"
      "  millrace health --service detector           # the same for one model\n"
      "  millrace health --url unix:/run/millrace.sock\n\n"
      "Exit codes: 0 serving, 1 bad arguments, 2 no connection, 3 the check failed (an unknown\n"
      "model, a timeout), 4 not serving");
  command->add_option("-s,--service", options->service,
                      "A model's name; default: the whole server");
  command->add_option("--timeout", options->timeout_seconds, "Seconds to wait for the answer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->callback([&session, options] { session.exit_code = Run(session, *options); });
}

}  // namespace client
}  // namespace millrace
