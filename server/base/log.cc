// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <utility>

#include "absl/strings/string_view.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/rate_limiter.h"

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
    R"({"time":"%Y-%m-%dT%H:%M:%S.%f%z","level":"%l","program":"%n","pid":%P,%v})";

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

bool is_json = false;

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", Escape(text, /*quotes=*/true), "\"");
}

// A value as it stands in text: quoted only where it could be misread.
std::string Readable(absl::string_view text) {
  const bool plain = !text.empty() && text.find_first_of(" \"=\\") == absl::string_view::npos;
  return plain ? Escape(text, /*quotes=*/false) : Quoted(text);
}

std::string Compose(absl::string_view message, absl::Span<const LogField> fields) {
  std::string line =
      is_json ? absl::StrCat("\"message\":", Quoted(message)) : Escape(message, /*quotes=*/false);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, is_json ? ",\"" : " ", field.name, is_json ? "\":" : "=");
    if (const int64_t* const number = std::get_if<int64_t>(&field.value)) {
      absl::StrAppend(&line, *number);
    } else {
      const std::string& text = std::get<std::string>(field.value);
      line += is_json ? Quoted(text) : Readable(text);
    }
  }
  return line;
}

// Which lines may be written.
class Flood {
 public:
  // Whether a line may be written now; `*dropped` is how many weren't since the last that was.
  bool Take(uint64_t* dropped) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    if (!limiter_.Take(Clock::Real().Now())) {
      ++dropped_;
      total_.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    *dropped = std::exchange(dropped_, 0);
    return true;
  }

  uint64_t total() const { return total_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> total_{0};
  Mutex mutex_;
  RateLimiter limiter_ ABSL_GUARDED_BY(mutex_){200, 2000};
  uint64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
};

Flood& TheFlood() {
  static auto* const flood = new Flood;
  return *flood;
}

}  // namespace

void ConfigureLog(LogLevel level, LogFormat format, absl::string_view program) {
  auto logger = std::make_shared<spdlog::logger>(std::string(program), Logger().sinks().begin(),
                                                 Logger().sinks().end());
  logger->set_level(ToSpdlog(level));
  logger->set_pattern(format == LogFormat::kJson ? kJsonPattern : kTextPattern);
  is_json = format == LogFormat::kJson;
  Logger().swap(*logger);
}

void SetLogLevel(LogLevel level) { Logger().set_level(ToSpdlog(level)); }

void Log(LogLevel level, absl::string_view message, absl::Span<const LogField> fields) {
  if (!Logger().should_log(ToSpdlog(level))) return;
  uint64_t dropped = 0;
  if (level != LogLevel::kError && !TheFlood().Take(&dropped)) return;
  if (dropped > 0) {
    const std::string told = absl::StrCat(dropped, " lines were left out: there were too many");
    Logger().log(spdlog::level::warn, "{}", Compose(told, {}));
  }
  Logger().log(ToSpdlog(level), "{}", Compose(message, fields));
}

uint64_t DroppedLogLines() { return TheFlood().total(); }

}  // namespace millrace
