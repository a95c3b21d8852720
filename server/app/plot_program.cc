// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/app/plot_program.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

// Runs a program and waits for its end; its exit code.
absl::StatusOr<int> RunProgram(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (error != 0) return ErrnoStatus(error, words[0]);
  int ended = 0;
  while (waitpid(pid, &ended, 0) < 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "waitpid");
  }
  return WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
}

fs::path OwnFolder() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path();
}

std::string FindPython() {
  if (const char* const named = std::getenv("MILLRACE_PYTHON")) return named;
  for (fs::path folder = OwnFolder(); folder.has_relative_path(); folder = folder.parent_path()) {
    const fs::path python = folder / ".venv/bin/python";
    if (access(python.c_str(), X_OK) == 0) return python.string();
  }
  return "python3";
}

}  // namespace

absl::StatusOr<PlotProgram> PlotProgram::Find() {
  const std::string script =
      (OwnFolder().parent_path() / "share/millrace/python/plot_tuning.py").string();
  if (access(script.c_str(), R_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("--plot takes ", script, ", which isn't there; --json has the same figures"));
  }
  const std::string python = FindPython();
  const absl::StatusOr<int> code = RunProgram({python, "-c", "import matplotlib"});
  if (!code.ok() || *code != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("--plot takes a Python with matplotlib, and ", python,
                     " has none; name one in MILLRACE_PYTHON, or take the figures of --json"));
  }
  return PlotProgram(python, script);
}

absl::Status PlotProgram::Draw(const std::string& report, const std::string& png) const {
  std::string path = (fs::temp_directory_path() / "millrace-report-XXXXXX").string();
  const UniqueFd file(mkstemp(path.data()));
  if (!file.valid()) return ErrnoStatus(errno, path);
  absl::Status status;
  if (write(file.get(), report.data(), report.size()) != static_cast<ssize_t>(report.size())) {
    status = ErrnoStatus(errno, path);
  } else {
    const absl::StatusOr<int> code = RunProgram({python_, script_, path, png});
    status = code.status();
    if (code.ok() && *code != 0) {
      status = absl::UnavailableError(absl::StrCat(png, " can't be drawn; see above"));
    }
  }
  unlink(path.c_str());
  return status;
}

}  // namespace millrace
