// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <variant>

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

// SIGTERM and SIGINT, waited for by a thread. They must be blocked in every thread.
class StopSignals {
 public:
  static sigset_t Block() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    return signals;
  }

  explicit StopSignals(const sigset_t& signals)
      : thread_("signals", [this, signals] { Watch(signals); }) {}

  // Blocks until the first signal has come; from now on one no longer ends the process at once.
  void Wait() {
    MutexLock lock(mutex_);
    waiting_ = true;
    while (!came_) changed_.Wait(mutex_);
  }

 private:
  [[noreturn]] void Watch(sigset_t signals) {
    for (int number;;) {
      sigwait(&signals, &number);
      MutexLock lock(mutex_);
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

int Run(const ServerConfig& config) {
  if (config.show_version) return Run(ExitNow{0, DescribeVersions(config.worker_program)});
  signal(SIGPIPE, SIG_IGN);
  // Never destroyed: its thread waits for signals until the process ends.
  auto* const signals = new StopSignals(StopSignals::Block());
  ConfigureLog(config.log_level, config.log_format, "millrace-server");
  if (config.check_only) return Check(config);
  absl::StatusOr<std::unique_ptr<ServerApp>> app = ServerApp::Start(config);
  if (!app.ok()) {
    LogError("can't start: ", std::string(app.status().message()));
    return 1;
  }
  signals->Wait();
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
  return std::visit([](const auto& command) { return millrace::Run(command); },
                    millrace::ParseFlags(argc, argv));
}
