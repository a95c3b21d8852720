// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <type_traits>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/app/inspect_command.h"
#include "server/app/server_app.h"
#include "server/app/tune_command.h"
#include "server/base/log.h"
#include "server/base/thread.h"
#include "server/config/flags.h"

namespace millrace {
namespace {

// SIGTERM, SIGINT and SIGHUP, waited for by a thread. They must be blocked in every thread.
class Signals {
 public:
  // SIGHUP only where something is to be read again.
  static sigset_t Block(bool with_hangup) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (with_hangup) sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    return signals;
  }

  explicit Signals(const sigset_t& signals)
      : thread_("signals", [this, signals] { Watch(signals); }) {}

  // Blocks until a SIGHUP has come since the last call (true), or the first of the others (false).
  // From now on one of those no longer ends the process at once.
  bool WaitForHangup() {
    MutexLock lock(mutex_);
    waiting_ = true;
    while (!came_ && !hung_up_) changed_.Wait(mutex_);
    hung_up_ = false;
    return !came_;
  }

 private:
  [[noreturn]] void Watch(sigset_t signals) {
    for (int number;;) {
      sigwait(&signals, &number);
      MutexLock lock(mutex_);
      if (number == SIGHUP) {
        hung_up_ = true;
        changed_.NotifyAll();
        continue;
      }
      // While models are being loaded nobody's request is lost; and a second signal means "now".
      // The workers end with this process.
      if (!waiting_ || came_) {
        LogWarning("stopping at once on a signal");
        std::_Exit(came_ ? 1 : 0);
      }
      came_ = true;
      changed_.NotifyAll();
    }
  }

  Mutex mutex_;
  CondVar changed_;
  bool waiting_ ABSL_GUARDED_BY(mutex_) = false;
  bool came_ ABSL_GUARDED_BY(mutex_) = false;
  bool hung_up_ ABSL_GUARDED_BY(mutex_) = false;
  Thread thread_;
};

int Run(const ExitNow& leave) {
  std::fputs(leave.text.c_str(), leave.code == 0 ? stdout : stderr);
  return leave.code;
}

int Run(const InspectConfig& config) { return Run(RunInspectCommand(config)); }

int Run(const TuneConfig& config) {
  return Run(RunTuneCommand(config, std::cerr, isatty(STDERR_FILENO) != 0));
}

int Check(const ServerConfig& config) {
  const absl::Status status = ServerApp::Check(config);
  if (!status.ok()) return Run(ExitNow{1, absl::StrCat(status.message(), "\n")});
  return Run(ExitNow{0, "all of it would serve\n"});
}

// What the environment and the file say now.
absl::StatusOr<LogLevel> LogLevelNow(int argc, const char* const* argv) {
  const Command command = ParseFlags(argc, argv);
  if (const auto* const config = std::get_if<ServerConfig>(&command)) return config->log_level;
  const auto* const error = std::get_if<ExitNow>(&command);
  return absl::InvalidArgumentError(
      absl::StripAsciiWhitespace(error == nullptr ? "" : error->text));
}

int Run(const ServerConfig& config, int argc, const char* const* argv) {
  if (config.show_version) return Run(ExitNow{0, DescribeVersions(config.worker_program)});
  signal(SIGPIPE, SIG_IGN);
  // Never destroyed: its thread waits for signals until the process ends.
  auto* const signals = new Signals(Signals::Block(!config.check_only));
  ConfigureLog(config.log_level, config.log_format, "millrace-server");
  if (config.check_only) return Check(config);
  absl::StatusOr<std::unique_ptr<ServerApp>> app = ServerApp::Start(config);
  if (!app.ok()) {
    LogError("can't start: ", std::string(app.status().message()));
    return 1;
  }
  while (signals->WaitForHangup()) (*app)->Reload(LogLevelNow(argc, argv));
  if (!(*app)->Stop()) std::_Exit(1);  // The workers end with this process.
  app->reset();
  LogInfo("stopped");
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  // Debian builds abseil with deadlock detection: every lock in gRPC would take a process-wide
  // lock, and a false cycle would abort the process. Must come before the first gRPC object.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return std::visit(
      [&](const auto& command) {
        if constexpr (std::is_same_v<decltype(command), const millrace::ServerConfig&>) {
          return millrace::Run(command, argc, argv);
        } else {
          return millrace::Run(command);
        }
      },
      millrace::ParseFlags(argc, argv));
}
