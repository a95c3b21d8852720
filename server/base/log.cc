// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace millrace {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

constexpr char kTextPattern[] = "%Y-%m-%dT%H:%M:%S.%f%z %L %n[%P] %v";
constexpr char kJsonPattern[] =
    R"({"time":"%Y-%m-%dT%H:%M:%S.%f%z","level":"%l","program":"%n","pid":%P,"message":"%v"})";

spdlog::logger& Logger() {
  static auto* const logger = [] {
    auto* made = new std::shared_ptr<spdlog::logger>(spdlog::stderr_logger_mt("millrace"));
    (*made)->set_pattern(kTextPattern);
    return made;
  }();
  return **logger;
}

// Escapes as JSON does: quotes and backslashes only where the format needs it, control characters
// always.
std::string Escape(absl::string_view message, bool quotes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(message.size());
  for (const char c : message) {
    if (quotes && (c == '"' || c == '\\')) {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += "\\u00";
      out += kHex[(c >> 4) & 0xf];
      out += kHex[c & 0xf];
    } else {
      out += c;
    }
  }
  return out;
}

bool escape_quotes = false;

}  // namespace

void ConfigureLog(LogLevel level, LogFormat format, absl::string_view program) {
  auto logger = std::make_shared<spdlog::logger>(std::string(program), Logger().sinks().begin(),
                                                 Logger().sinks().end());
  logger->set_level(ToSpdlog(level));
  logger->set_pattern(format == LogFormat::kJson ? kJsonPattern : kTextPattern);
  escape_quotes = format == LogFormat::kJson;
  Logger().swap(*logger);
}

void Log(LogLevel level, absl::string_view message) {
  if (!Logger().should_log(ToSpdlog(level))) return;
  Logger().log(ToSpdlog(level), "{}", Escape(message, escape_quotes));
}

}  // namespace millrace
