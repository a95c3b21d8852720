// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/access/kept_files.h"
#include "server/access/server_certificate.h"
#include "server/access/token_table.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"

namespace millrace {

// The certificate and the tokens of this server, as their files say now: a thread looks for changes
// every second. Thread-safe.
//
// Invariant: what is in use was good as a whole when it was read. Files that are missing, cut off
// or don't belong together change nothing.
class CredentialsStore {
 public:
  struct Options {
    std::string certificate_file = {};  // Empty: no TLS.
    std::string key_file = {};
    std::string client_authority_file = {};  // Empty: clients need no certificate.
    std::string token_file = {};             // Empty: no tokens are needed.
  };

  // Reads them all; an error names each file that can't be used and what is wrong with it.
  static absl::StatusOr<std::unique_ptr<CredentialsStore>> Create(Options options, Clock& clock);

  ~CredentialsStore();

  // Reads them again at once, whether they have changed or not. An error says of each that can't be
  // used what is wrong with it; the others are in use then.
  absl::Status Reread() ABSL_LOCKS_EXCLUDED(looking_, mutex_);

  // Null where there is no TLS. Another one each time that it has changed.
  std::shared_ptr<const ServerCertificate> certificate() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Null where no tokens are needed.
  std::shared_ptr<const TokenTable> tokens() const ABSL_LOCKS_EXCLUDED(mutex_);

  bool uses_tls() const { return !options_.certificate_file.empty(); }
  bool demands_certificates() const { return !options_.client_authority_file.empty(); }
  bool demands_tokens() const { return !options_.token_file.empty(); }

 private:
  CredentialsStore(Options options, Clock& clock);

  absl::Status ReadAll(absl::Status (KeptFiles::*read)()) ABSL_LOCKS_EXCLUDED(looking_, mutex_);
  void Run() ABSL_LOCKS_EXCLUDED(looking_, mutex_);

  const Options options_;
  Clock& clock_;
  Mutex looking_;
  std::vector<KeptFiles> files_ ABSL_GUARDED_BY(looking_);
  mutable Mutex mutex_;
  CondVar stopped_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<const ServerCertificate> certificate_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const TokenTable> tokens_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Thread> thread_;
};

}  // namespace millrace
