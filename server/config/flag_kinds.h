// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/time/time.h"
#include "server/base/log.h"
#include "server/base/sandbox_mode.h"

namespace millrace {

// Flags that several commands have.

// A duration, as "5s", "250ms", "1m30s" or a bare number of seconds; never negative. What
// `duration` holds is the default.
void AddDuration(CLI::App& app, const std::string& flag, absl::Duration* duration,
                 const std::string& help);

// --max-message-bytes.
void AddMaxMessageBytes(CLI::App& app, int* bytes, const std::string& help);

// --worker FILE.
void AddWorkerProgram(CLI::App& app, std::string* program);

// --sandbox off, on or required.
void AddSandbox(CLI::App& app, SandboxMode* mode);

// --log-level.
void AddLogLevel(CLI::App& app, LogLevel* level, const std::string& default_level);

}  // namespace millrace
