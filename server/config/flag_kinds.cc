// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/config/flag_kinds.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace millrace {

static std::string ParseDuration(const std::string& text, absl::Duration* duration) {
  double seconds = 0;
  if (absl::SimpleAtod(text, &seconds)) {
    *duration = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, duration)) {
    return absl::StrCat("'", text, "' is no duration; write 5s, 250ms or 1m30s");
  }
  return *duration < absl::ZeroDuration() ? absl::StrCat("'", text, "' is negative") : "";
}

void AddDuration(CLI::App& app, const std::string& flag, absl::Duration* duration,
                 const std::string& help) {
  app.add_option_function<std::string>(
         flag,
         [flag, duration](const std::string& text) {
           const std::string error = ParseDuration(text, duration);
           if (!error.empty()) throw CLI::ValidationError(flag, error);
         },
         help)
      ->type_name("DURATION")
      ->default_str(absl::FormatDuration(*duration));
}

void AddFile(CLI::App& app, const std::string& flag, std::string* path, const std::string& help) {
  app.add_option(flag, *path, help)->type_name("FILE")->check(CLI::ExistingFile);
}

void AddMaxMessageBytes(CLI::App& app, int* bytes, const std::string& help) {
  app.add_option("--max-message-bytes", *bytes, help)
      ->check(CLI::Range(1 << 10, 1 << 30))
      ->capture_default_str();
}

void AddWorkerProgram(CLI::App& app, std::string* program) {
  AddFile(app, "--worker", program,
          "The worker program; default: millrace-worker beside this program");
}

void AddSandbox(CLI::App& app, SandboxMode* mode) {
  AddChoice(
      app, "--sandbox", mode,
      {{"off", SandboxMode::kOff}, {"on", SandboxMode::kOn}, {"required", SandboxMode::kRequired}},
      "on",
      "Shut the processes that run models in: off, on (what the kernel refuses is left out, "
      "with a warning) or required (such a model is not served)");
}

void AddLogLevel(CLI::App& app, LogLevel* level, const std::string& default_level) {
  AddChoice(app, "--log-level", level,
            {{"debug", LogLevel::kDebug},
             {"info", LogLevel::kInfo},
             {"warning", LogLevel::kWarning},
             {"error", LogLevel::kError}},
            default_level, "What is logged, and what is worse");
}

}  // namespace millrace
