// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/own_host.h"

#include <arpa/inet.h>

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace millrace {
namespace {

bool IsNameCharacter(char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; }

}  // namespace

bool IsOwnHost(absl::string_view host) {
  std::string name = absl::AsciiStrToLower(host);
  in6_addr address;
  if (!name.empty() && name.front() == '[') {
    const size_t end = name.find(']');
    return end != std::string::npos &&
           inet_pton(AF_INET6, name.substr(1, end - 1).c_str(), &address) == 1;
  }
  name = name.substr(0, name.find(':'));  // Without the port.
  if (!name.empty() && name.back() == '.') name.pop_back();
  if (name.empty()) return false;
  for (const char c : name) {
    if (!IsNameCharacter(c)) return false;
  }
  if (inet_pton(AF_INET, name.c_str(), &address) == 1) return true;
  if (name.find('.') == std::string::npos) return true;
  for (const char* ending : {".internal", ".local", ".localhost", ".svc"}) {
    if (absl::EndsWith(name, ending)) return true;
  }
  return false;
}

}  // namespace millrace
