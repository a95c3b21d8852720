// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/command_line.h"

#include <algorithm>

#include "client/cli/session.h"
#include "grpcpp/grpcpp.h"

namespace millrace {
inline namespace client {
namespace {

constexpr char kExamples[] =
    "Examples:\n"
    "  millrace health                                   # is the server ready?\n"
    "  millrace models                                   # what does it serve?\n"
    "  millrace infer adder --input '[1, 2, 3]'          # one request\n"
    "  millrace stream people.avi --model detector       # a video, answered in order\n"
    "  millrace inspect net.pt --input 3x224x224:FP32    # what does this model take and "
    "return?\n\n"
    "`millrace COMMAND --help` explains each command with examples.\n"
    "Exit codes: 0 success, 1 bad arguments, 2 no connection, 3 the call failed, 4 not serving";

}  // namespace

int RunCommandLine(std::vector<std::string> arguments, std::ostream& out, std::ostream& err,
                   bool err_is_terminal) {
  Session session{.app = CLI::App("Talks to a Millrace server.", "millrace"),
                  .out = out,
                  .err = err,
                  .err_is_terminal = err_is_terminal};
  session.app.footer(kExamples);
  session.app.set_version_flag("--version",
                               "millrace " MILLRACE_VERSION " (gRPC " + grpc::Version() + ")");
  session.app.require_subcommand(1);
  AddHealthCommand(session);
  AddModelsCommand(session);
  AddInferCommand(session);
  AddStreamCommand(session);
  AddMapCommand(session);
  AddCompileCommand(session);
  AddAdminCommand(session);
  AddServerCommands(session);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    session.app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    return session.app.exit(error, out, err) == 0 ? kSuccess : kBadArguments;
  }
  return session.exit_code;
}

}  // namespace client
}  // namespace millrace
