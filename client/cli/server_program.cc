// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/server_program.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace millrace {
inline namespace client {

absl::StatusOr<std::string> FindServerProgram() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  std::string program = (self.parent_path() / "millrace-server").string();
  if (access(program.c_str(), X_OK) == 0) return program;
  return absl::UnavailableError(absl::StrCat(program, ": ", std::strerror(errno),
                                             "; install millrace-server beside this program"));
}

absl::Status BecomeServerProgram(const std::vector<std::string>& arguments) {
  const auto program = FindServerProgram();
  if (!program.ok()) return program.status();
  std::vector<char*> words = {const_cast<char*>("millrace")};
  for (const std::string& argument : arguments)
    words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  execv(program->c_str(), words.data());
  return absl::UnavailableError(absl::StrCat(*program, ": ", std::strerror(errno)));
}

}  // namespace client
}  // namespace millrace
