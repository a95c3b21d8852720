// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/embedded_server.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/interrupts.h"
#include "client/cli/server_program.h"
#include "client/client.h"

namespace millrace {
inline namespace client {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kLook = absl::Milliseconds(50);
constexpr size_t kMostOfLog = 2000;

absl::Status SystemError(const std::string& what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<EmbeddedServer>> EmbeddedServer::Start(const std::string& repository,
                                                                      absl::Duration timeout) {
  std::unique_ptr<EmbeddedServer> server(new EmbeddedServer());
  if (absl::Status status = server->Launch(repository); !status.ok()) return status;
  if (absl::Status status = server->WaitUntilReady(timeout); !status.ok()) return status;
  return server;
}

EmbeddedServer::~EmbeddedServer() {
  if (pid_ > 0) {
    kill(pid_, SIGTERM);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
}

std::string EmbeddedServer::address() const { return absl::StrCat("unix:", folder_, "/socket"); }

absl::Status EmbeddedServer::Launch(const std::string& repository) {
  const auto found = FindServerProgram();
  if (!found.ok()) return found.status();
  const std::string& program = *found;
  std::error_code error;
  std::string folder = (fs::temp_directory_path(error) / "millrace-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return SystemError(folder);
  folder_ = folder;
  const std::string listen = address();
  const std::string log = absl::StrCat(folder_, "/log");
  const std::vector<std::string> arguments = {
      program,       "--model-repository", repository, "--grpc-listen", listen, "--http-listen",
      "127.0.0.1:0", "--drain-delay",      "0s"};
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) {
    pointers.push_back(const_cast<char*>(argument.c_str()));
  }
  pointers.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) return SystemError("fork");
  if (pid_ > 0) return absl::OkStatus();
  // The child: only what is safe between fork and exec.
  const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const bool set_up = file >= 0 && nothing >= 0 && dup2(nothing, STDIN_FILENO) >= 0 &&
                      dup2(file, STDOUT_FILENO) >= 0 && dup2(file, STDERR_FILENO) >= 0 &&
                      setpgid(0, 0) == 0 &&  // An interrupt at the terminal is this program's.
                      prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent;
  if (set_up) execv(pointers[0], pointers.data());
  _exit(127);
}

absl::Status EmbeddedServer::WaitUntilReady(absl::Duration timeout) {
  const absl::Time latest = absl::Now() + timeout;
  for (;; absl::SleepFor(kLook)) {
    if (Interrupted()) return absl::CancelledError("interrupted");
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = 0;
      return absl::UnavailableError(absl::StrCat("the server has ended; it said:\n", LastOfLog()));
    }
    const auto client = Client::Connect(address(), {.connect_timeout = kLook});
    if (client.ok()) {
      const auto serving = (*client)->IsServing("", {.timeout = absl::Seconds(5)});
      if (serving.ok() && *serving) return absl::OkStatus();
    }
    if (absl::Now() > latest) {
      return absl::UnavailableError(absl::StrCat("the server is not ready after ",
                                                 absl::FormatDuration(timeout), "; it said:\n",
                                                 LastOfLog()));
    }
  }
}

std::string EmbeddedServer::LastOfLog() const {
  std::ostringstream text;
  text << std::ifstream(absl::StrCat(folder_, "/log")).rdbuf();
  const std::string log = text.str();
  return log.substr(log.size() - std::min(log.size(), kMostOfLog));
}

}  // namespace client
}  // namespace millrace
