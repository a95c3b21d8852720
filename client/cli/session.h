// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <ostream>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"

namespace millrace {
inline namespace client {

// What the command line exits with: grpc_health_probe's codes, for every command.
enum ExitCode {
  kSuccess = 0,
  kBadArguments = 1,
  kCannotConnect = 2,
  kCallFailed = 3,
  kNotServing = 4,
};

// What the commands of one run share. Each command has a function that adds it to `app`; when the
// command is chosen it runs and sets `exit_code`.
struct Session {
  CLI::App app;
  std::ostream& out;  // results
  std::ostream& err;  // errors, progress, summaries
  bool err_is_terminal = false;
  std::string url = "127.0.0.1:8001";
  double connect_timeout_seconds = 5;
  bool tls = false;
  TlsOptions tls_files = {};
  std::string token_file = {};
  int exit_code = kSuccess;

  // Adds a command; `examples` end its help.
  CLI::App* AddCommand(const std::string& name, const std::string& description,
                       const std::string& examples);

  // How `url` is reached.
  ClientOptions Options() const;

  // Connects to `url`.
  absl::StatusOr<std::unique_ptr<Client>> Connect() const;

  // Prints the error and returns `code`.
  int Fail(const absl::Status& status, ExitCode code) const;
  // The same, with the code for a failed call: kCannotConnect or kCallFailed.
  int Fail(const absl::Status& status) const;
};

void AddAdminCommand(Session& session);
void AddHealthCommand(Session& session);
void AddModelsCommand(Session& session);
void AddInferCommand(Session& session);
void AddStreamCommand(Session& session);
void AddMapCommand(Session& session);
void AddCompileCommand(Session& session);
void AddServerCommands(Session& session);  // Those that millrace-server carries out.

}  // namespace client
}  // namespace millrace
