// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace millrace {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Sets up logging on stderr for this process; before that, text from level info on. `program`
// stands in every line. Call once, before other threads log.
void ConfigureLog(LogLevel level, LogFormat format, absl::string_view program);

// Writes one line. Thread-safe. Line breaks in `message` are escaped, so that nobody's input can
// forge a line.
void Log(LogLevel level, absl::string_view message);

// Writes the pieces, joined as by absl::StrCat, as one line.
template <typename... Pieces>
void LogInfo(const Pieces&... pieces) {
  Log(LogLevel::kInfo, absl::StrCat(pieces...));
}
template <typename... Pieces>
void LogWarning(const Pieces&... pieces) {
  Log(LogLevel::kWarning, absl::StrCat(pieces...));
}
template <typename... Pieces>
void LogError(const Pieces&... pieces) {
  Log(LogLevel::kError, absl::StrCat(pieces...));
}

}  // namespace millrace
