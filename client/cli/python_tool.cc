// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/python_tool.h"

#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace millrace {
inline namespace client {
namespace {

namespace fs = std::filesystem;

std::string Variable(const char* name) {
  const char* const value = getenv(name);
  return value == nullptr ? "" : value;
}

bool IsProgram(const std::string& file) {
  std::error_code ignored;
  return !fs::is_directory(file, ignored) && access(file.c_str(), X_OK) == 0;
}

// The program that a shell would run; "" where there is none.
std::string FindProgram(const std::string& name, const std::string& path) {
  if (name.find('/') != std::string::npos) return IsProgram(name) ? name : "";
  for (const absl::string_view folder : absl::StrSplit(path, ':', absl::SkipEmpty())) {
    std::string file = absl::StrCat(folder, "/", name);
    if (IsProgram(file)) return file;
  }
  return "";
}

}  // namespace

absl::StatusOr<std::string> FindPython(const std::string& wanted, const std::string& bin,
                                       const std::string& path) {
  if (!wanted.empty()) {
    std::string python = FindProgram(wanted, path);
    if (!python.empty()) return python;
    return absl::FailedPreconditionError(absl::StrCat(
        "MILLRACE_PYTHON is '", wanted, "', which is no program; name a Python there"));
  }
  std::string beside = (fs::path(bin).parent_path().parent_path() / ".venv/bin/python").string();
  if (IsProgram(beside)) return beside;
  std::string python = FindProgram("python3", path);
  if (!python.empty()) return python;
  return absl::FailedPreconditionError(absl::StrCat(
      "there is no Python: neither ", beside,
      " nor a python3 in PATH; install one with torch, or name it in MILLRACE_PYTHON"));
}

absl::Status BecomePythonTool(const std::string& package,
                              const std::vector<std::string>& arguments) {
  std::error_code error;
  const fs::path bin = fs::read_symlink("/proc/self/exe", error).parent_path();
  const std::string packages = (bin.parent_path() / "share/millrace/python").string();
  if (!fs::exists(fs::path(packages) / package / "__main__.py", error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(packages, "/", package,
                     " isn't there, which comes with this program; build or install it "
                     "anew"));
  }
  const auto python = FindPython(Variable("MILLRACE_PYTHON"), bin.string(), Variable("PATH"));
  if (!python.ok()) return python.status();
  const std::string others = Variable("PYTHONPATH");
  setenv("PYTHONPATH", absl::StrCat(packages, others.empty() ? "" : ":", others).c_str(), 1);
  std::vector<std::string> command = {*python, "-m", package};
  command.insert(command.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& argument : command) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  execv(pointers[0], pointers.data());
  return absl::FailedPreconditionError(absl::StrCat(*python, ": ", std::strerror(errno)));
}

}  // namespace client
}  // namespace millrace
