// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/python_tool.h"
#include "client/cli/session.h"

namespace millrace {
inline namespace client {

// What comes after the command is the Python program's to read, --help included.
void AddCompileCommand(Session& session) {
  CLI::App* command = session.app.add_subcommand(
      "compile", "Compile a PyTorch model for this machine's processor (takes Python with torch)");
  command->set_help_flag();
  command->prefix_command();
  command->callback([&session, command] {
    session.exit_code =
        session.Fail(BecomePythonTool("millrace_compile", command->remaining()), kBadArguments);
  });
}

}  // namespace client
}  // namespace millrace
