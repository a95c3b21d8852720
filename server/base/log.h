// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace millrace {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Sets up logging on stderr for this process; before that, text from level info on. `program`
// stands in every line. Call once, before other threads log.
void ConfigureLog(LogLevel level, LogFormat format, absl::string_view program);

// Logs what is of this level or worse from now on. Thread-safe.
void SetLogLevel(LogLevel level);

// Something that a line says of what it tells: in JSON a member of its object, in text
// "name=value" behind the message.
struct LogField {
  const char* name;
  std::variant<int64_t, std::string> value;
};

// Writes one line. Thread-safe. Line breaks in `message` and in fields are escaped, so that
// nobody's input can forge a line.
//
// Lines below the level error are left out where there are more than 2,000 at once and then more
// than 200 a second; the next one that is written follows one that says how many those were.
void Log(LogLevel level, absl::string_view message, absl::Span<const LogField> fields = {});

// Lines that were left out so far.
uint64_t DroppedLogLines();

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
