// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "server/config/inspect_config.h"

namespace millrace {

// Adds the subcommand `inspect`, which fills `config`.
CLI::App* AddInspectCommand(CLI::App& app, InspectConfig& config);

// Reads "[NAME:][DIMS:]TYPE": "x:3x224x224:FP32", "3x224x224:FP32", "-1:INT64", "scale:FP32" and
// "FP32" (without dims: a number for each row). Returns what is wrong with it; empty: nothing.
std::string ParseInputFlag(const std::string& text, InputFlag* input);

}  // namespace millrace
