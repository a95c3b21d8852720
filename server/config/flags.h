// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <variant>

#include "server/config/inspect_config.h"
#include "server/config/server_config.h"
#include "server/config/tune_config.h"

namespace millrace {

// The program is to end now, with this code, after printing `text` (on stdout when the code is 0,
// else on stderr).
struct ExitNow {
  int code = 0;
  std::string text;
};

// What the command line asks for: one config for each thing that the program does. What is told
// apart by the first word of the command line is a subcommand in ParseFlags(), an alternative here
// and a Run() in main().
using Command = std::variant<ServerConfig, InspectConfig, TuneConfig, ExitNow>;

// Turns the command line into what it asks for, or says why the program ends: --help, or a flag
// that makes no sense, named with what came and what was expected.
Command ParseFlags(int argc, const char* const* argv);

}  // namespace millrace
