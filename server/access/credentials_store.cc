// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/credentials_store.h"

#include <utility>

#include "absl/strings/str_join.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr absl::Duration kLookEvery = absl::Seconds(1);
constexpr size_t kMostCertificateBytes = 1 << 20;

}  // namespace

CredentialsStore::CredentialsStore(Options options, Clock& clock)
    : options_(std::move(options)), clock_(clock) {
  if (uses_tls()) {
    std::vector<std::string> paths = {options_.certificate_file, options_.key_file};
    if (demands_certificates()) paths.push_back(options_.client_authority_file);
    files_.emplace_back(
        "the certificate", std::move(paths), kMostCertificateBytes,
        [this](std::vector<std::string> texts) -> absl::Status {
          std::optional<std::string> authorities;
          if (texts.size() > 2) authorities = std::move(texts[2]);
          MILLRACE_ASSIGN_OR_RETURN(
              ServerCertificate checked,
              CheckCertificate(std::move(texts[0]), std::move(texts[1]), std::move(authorities)));
          auto shared = std::make_shared<const ServerCertificate>(std::move(checked));
          MutexLock lock(mutex_);
          certificate_ = std::move(shared);
          return absl::OkStatus();
        });
  }
  if (demands_tokens()) {
    files_.emplace_back("the tokens", std::vector<std::string>{options_.token_file},
                        TokenTable::kMostFileBytes,
                        [this](std::vector<std::string> texts) -> absl::Status {
                          MILLRACE_ASSIGN_OR_RETURN(TokenTable table, TokenTable::Parse(texts[0]));
                          auto shared = std::make_shared<const TokenTable>(std::move(table));
                          MutexLock lock(mutex_);
                          tokens_ = std::move(shared);
                          return absl::OkStatus();
                        });
  }
}

absl::StatusOr<std::unique_ptr<CredentialsStore>> CredentialsStore::Create(Options options,
                                                                           Clock& clock) {
  std::unique_ptr<CredentialsStore> store(new CredentialsStore(std::move(options), clock));
  MILLRACE_RETURN_IF_ERROR(store->ReadAll(&KeptFiles::Read));
  if (store->uses_tls() || store->demands_tokens()) {
    store->thread_ = std::make_unique<Thread>("credentials", [raw = store.get()] { raw->Run(); });
  }
  return store;
}

absl::Status CredentialsStore::ReadAll(absl::Status (KeptFiles::*read)()) {
  MutexLock lock(looking_);
  std::vector<std::string> problems;
  for (KeptFiles& files : files_) {
    const absl::Status status = (files.*read)();
    if (!status.ok()) problems.emplace_back(status.message());
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "; "));
}

absl::Status CredentialsStore::Reread() { return ReadAll(&KeptFiles::Reread); }

CredentialsStore::~CredentialsStore() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    stopped_.NotifyAll();
  }
  thread_.reset();
}

std::shared_ptr<const ServerCertificate> CredentialsStore::certificate() const {
  MutexLock lock(mutex_);
  return certificate_;
}

std::shared_ptr<const TokenTable> CredentialsStore::tokens() const {
  MutexLock lock(mutex_);
  return tokens_;
}

void CredentialsStore::Run() {
  for (;;) {
    const absl::Time next = clock_.Now() + kLookEvery;
    {
      MutexLock lock(mutex_);
      while (!stopping_ && clock_.Now() < next) clock_.WaitUntil(stopped_, mutex_, next);
      if (stopping_) return;
    }
    MutexLock lock(looking_);
    for (KeptFiles& files : files_) files.Look();
  }
}

}  // namespace millrace
