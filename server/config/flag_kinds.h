// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/base/log.h"
#include "server/base/sandbox_mode.h"

namespace millrace {

// Flags that several commands have.

// A duration, as "5s", "250ms", "1m30s" or a bare number of seconds; never negative. What
// `duration` holds is the default.
void AddDuration(CLI::App& app, const std::string& flag, absl::Duration* duration,
                 const std::string& help);

// One of a few words, each of which stands for a value; `initial` is the word for the default.
template <typename T>
void AddChoice(CLI::App& app, const std::string& flag, T* value,
               const std::map<std::string, T>& choices, const std::string& initial,
               const std::string& help) {
  std::vector<std::string> words;
  for (const auto& [word, meant] : choices) words.push_back(word);
  app.add_option_function<std::string>(
         flag, [value, choices](const std::string& word) { *value = choices.at(word); }, help)
      ->check(CLI::IsMember(std::move(words)))
      ->default_str(initial);
}

// The path of a file that must exist.
void AddFile(CLI::App& app, const std::string& flag, std::string* path, const std::string& help);

// --max-message-bytes.
void AddMaxMessageBytes(CLI::App& app, int* bytes, const std::string& help);

// --worker FILE.
void AddWorkerProgram(CLI::App& app, std::string* program);

// --sandbox off, on or required.
void AddSandbox(CLI::App& app, SandboxMode* mode);

// --log-level.
void AddLogLevel(CLI::App& app, LogLevel* level, const std::string& default_level);

}  // namespace millrace
