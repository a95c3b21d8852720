// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/session.h"

namespace millrace {
inline namespace client {

CLI::App* Session::AddCommand(const std::string& name, const std::string& description,
                              const std::string& examples) {
  CLI::App* command = app.add_subcommand(name, description);
  command->footer("Examples:\n" + examples);
  command->add_option("-u,--url", url, "The server: host:port or unix:/path")
      ->capture_default_str();
  command
      ->add_option("--connect-timeout", connect_timeout_seconds, "Seconds to wait for a connection")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  return command;
}

absl::StatusOr<std::unique_ptr<Client>> Session::Connect() const {
  return Client::Connect(url, {.connect_timeout = absl::Seconds(connect_timeout_seconds)});
}

int Session::Fail(const absl::Status& status, ExitCode code) const {
  err << "millrace: " << absl::StatusCodeToString(status.code()) << ": "
      << std::string(status.message()) << "\n";
  return code;
}

int Session::Fail(const absl::Status& status) const {
  return Fail(status, absl::IsUnavailable(status) ? kCannotConnect : kCallFailed);
}

}  // namespace client
}  // namespace millrace
