// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/caller_check.h"

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace millrace {
namespace {

constexpr absl::string_view kScheme = "Bearer ";

// The token of the header; nullopt where it isn't one.
std::optional<absl::string_view> TokenIn(absl::Span<const absl::string_view> authorization) {
  if (authorization.size() != 1 || !absl::StartsWithIgnoreCase(authorization[0], kScheme)) {
    return std::nullopt;
  }
  return authorization[0].substr(kScheme.size());
}

}  // namespace

absl::Status CallerCheck::Check(absl::string_view path, const Caller& caller,
                                const TokenTable* tokens) const {
  const std::optional<MethodClass> method_class = ClassOf(path);
  if (!method_class) {
    return absl::PermissionDeniedError(
        absl::StrCat("no method '", path.substr(0, 128), "' is offered here"));
  }
  if (!options_.allowed_names.empty() &&
      std::none_of(caller.names.begin(), caller.names.end(), [this](absl::string_view name) {
        return std::find(options_.allowed_names.begin(), options_.allowed_names.end(), name) !=
               options_.allowed_names.end();
      })) {
    return absl::PermissionDeniedError(
        caller.names.empty()
            ? "the client's certificate has no subject alternative name; the server lets in only "
              "those that it was told of"
            : absl::StrCat("the client's certificate is for ", absl::StrJoin(caller.names, ", "),
                           ", which is none that the server was told to let in"));
  }
  if ((options_.offered & BitOf(*method_class)) == 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        "'", path, "' is not offered on this address; calls of class ", NameOf(*method_class),
        " are taken at ",
        *method_class == MethodClass::kAdmin ? "the server's --admin-listen" : "--grpc-listen"));
  }
  if (tokens == nullptr || *method_class == MethodClass::kOpen) return absl::OkStatus();
  const std::optional<absl::string_view> token = TokenIn(caller.authorization);
  if (!token) {
    return absl::UnauthenticatedError(
        caller.authorization.empty()
            ? "a token is needed; expected the metadata 'authorization: Bearer TOKEN'"
            : "the metadata 'authorization' must come once, as 'Bearer TOKEN'");
  }
  const uint32_t classes = tokens->ClassesOf(*token);
  if (classes == 0) return absl::UnauthenticatedError("the token is not one that is known here");
  if ((classes & BitOf(*method_class)) == 0) {
    return absl::PermissionDeniedError(absl::StrCat("the token is not good for calls of class ",
                                                    NameOf(*method_class), ", such as '", path,
                                                    "'"));
  }
  return absl::OkStatus();
}

}  // namespace millrace
