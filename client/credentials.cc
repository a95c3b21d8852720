// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/credentials.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace millrace {
inline namespace client {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path, const char* what) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file || text.str().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ", '", path, "', can't be read or is empty"));
  }
  return text.str();
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentials(
    const std::optional<TlsOptions>& tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  if (tls->certificate_file.empty() != tls->key_file.empty()) {
    return absl::InvalidArgumentError("a client's certificate and its key need each other");
  }
  grpc::SslCredentialsOptions options;
  struct File {
    const std::string& path;
    std::string& text;
    const char* what;
  };
  for (const File& file :
       {File{tls->ca_file, options.pem_root_certs, "the file of the server's authority"},
        File{tls->certificate_file, options.pem_cert_chain, "the certificate's file"},
        File{tls->key_file, options.pem_private_key, "the key's file"}}) {
    if (file.path.empty()) continue;
    absl::StatusOr<std::string> text = ReadFile(file.path, file.what);
    if (!text.ok()) return text.status();
    file.text = *std::move(text);
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::SslCredentials(options);
  if (credentials == nullptr) {
    return absl::InvalidArgumentError("the files of the certificates can't be used");
  }
  return credentials;
}

absl::StatusOr<std::string> TokenFile::Get() {
  const std::lock_guard lock(mutex_);
  const absl::Time now = absl::Now();
  if (now - read_at_ < kFresh) return token_;
  const absl::StatusOr<std::string> text = ReadFile(path_, "the token's file");
  std::string token;
  if (text.ok()) {
    token = std::string(absl::StripAsciiWhitespace(text->substr(0, text->find('\n'))));
  }
  const bool printable = std::all_of(token.begin(), token.end(), absl::ascii_isgraph);
  if (token.empty() || !printable) {
    if (!token_.empty()) return token_;
    return absl::UnauthenticatedError(
        text.ok() ? absl::StrCat("the token's file, '", path_,
                                 "', must begin with a line that holds the token and no spaces")
                  : std::string(text.status().message()));
  }
  token_ = std::move(token);
  read_at_ = now;
  return token_;
}

absl::Status TokenFile::AddTo(grpc::ClientContext& context) {
  const absl::StatusOr<std::string> token = Get();
  if (!token.ok()) return token.status();
  context.AddMetadata("authorization", absl::StrCat("Bearer ", *token));
  return absl::OkStatus();
}

}  // namespace client
}  // namespace millrace
