// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/session.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

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
  command->add_flag("--tls", tls, "Connect with TLS; any of the --tls- options says so, too");
  command
      ->add_option("--tls-ca", tls_files.ca_file,
                   "Authorities, in PEM, one of which has signed the server's certificate; "
                   "default: the system's")
      ->type_name("FILE");
  command->add_option("--tls-cert", tls_files.certificate_file, "Your own certificate, in PEM")
      ->type_name("FILE");
  command->add_option("--tls-key", tls_files.key_file, "Its private key, in PEM")
      ->type_name("FILE");
  command
      ->add_option("--token-file", token_file,
                   "A file with the token that the server knows you by; or the variable "
                   "MILLRACE_TOKEN holds the token itself")
      ->type_name("FILE");
  return command;
}

ClientOptions Session::Options() const {
  ClientOptions options = {.connect_timeout = absl::Seconds(connect_timeout_seconds)};
  if (tls || !tls_files.ca_file.empty() || !tls_files.certificate_file.empty() ||
      !tls_files.key_file.empty()) {
    options.tls = tls_files;
  }
  options.token_file = token_file;
  const char* const token = std::getenv("MILLRACE_TOKEN");
  if (token_file.empty() && token != nullptr && *token != '\0') {
    options.metadata.emplace_back("authorization", absl::StrCat("Bearer ", token));
  }
  return options;
}

absl::StatusOr<std::unique_ptr<Client>> Session::Connect() const {
  return Client::Connect(url, Options());
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
