// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <string>
#include <vector>

#include "client/cli/server_program.h"
#include "client/cli/session.h"

namespace millrace {
inline namespace client {
namespace {

// A command that millrace-server carries out: whatever follows its name is that program's to read,
// --help included.
void AddServerCommand(Session& session, const std::string& name, const std::string& description) {
  CLI::App* command = session.app.add_subcommand(name, description);
  command->prefix_command();
  command->set_help_flag();
  command->callback([&session, command, name] {
    std::vector<std::string> arguments = {name};
    for (const std::string& argument : command->remaining()) arguments.push_back(argument);
    session.out.flush();
    session.exit_code = session.Fail(BecomeServerProgram(arguments), kBadArguments);
  });
}

}  // namespace

void AddServerCommands(Session& session) {
  AddServerCommand(session, "inspect",
                   "Find out what a model takes and returns, and write its config.pbtxt");
  AddServerCommand(session, "tune",
                   "Measure how models run best on this machine, and write a plan for the server");
}

}  // namespace client
}  // namespace millrace
