// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/log.h"
#include "server/base/sandbox_mode.h"

namespace millrace {

// Everything that an operator can set, checked. Immutable after ParseFlags().
struct ServerConfig {
  std::vector<std::string> model_repositories;
  std::vector<std::string> grpc_listen = {"127.0.0.1:8001"};
  std::vector<std::string> admin_listen;   // Empty: nobody can administer it from outside.
  std::vector<std::string> health_listen;  // Empty: the health service is on grpc_listen only.
  std::string http_host = "127.0.0.1";
  int http_port = 8002;
  std::string model_control = "none";    // Or "explicit", "watch".
  std::vector<std::string> load_models;  // At start, with "explicit"; "*" is all.
  absl::Duration watch_settle = absl::Seconds(2);
  absl::Duration watch_poll = absl::Seconds(5);
  std::string worker_program;  // Empty: millrace-worker beside this program.

  int io_threads = 0;         // 0: chosen by the CPU budget.
  int transform_workers = 0;  // 0: up to one per budgeted core.
  int max_message_bytes = 64 << 20;
  int max_streams = 4096;
  int stream_window = 32;
  int max_stream_window = 256;
  int64_t max_queue_bytes = int64_t{1} << 30;
  int64_t max_stream_bytes = 256 << 20;
  int64_t grpc_memory_bytes = 0;  // 0: no quota.
  int stream_names = 64;          // That have metrics of their own.
  bool triton_metrics = false;
  bool load_reports = false;  // Of models, beside the answers of unary calls.

  std::string tls_cert;  // Files; empty: no TLS.
  std::string tls_key;
  std::string tls_client_ca;                  // Empty: clients need no certificate.
  std::vector<std::string> tls_allowed_sans;  // Empty: any certificate that the CA has signed.
  std::string token_file;                     // Empty: no token is needed.
  int max_connections = 0;                    // 0: chosen by the limit of file descriptors.
  int max_connections_per_peer = 1000;
  absl::Duration max_connection_age = absl::ZeroDuration();  // Zero: any.
  absl::Duration max_connection_age_grace = absl::Seconds(30);
  mode_t unix_mode = 0600;
  std::vector<uid_t> unix_allow_uids;  // Empty: whoever the mode lets.
  std::string reflection = "admin";    // Or "all", "off".
  bool channelz = false;

  std::vector<std::string> required_models;
  bool pin = false;
  absl::Duration tune_at_start = absl::ZeroDuration();  // Zero: nothing is measured.
  std::string plan;  // Empty: of each repository; "none": no plan; else a file.
  SandboxMode sandbox = SandboxMode::kOn;
  absl::Duration load_timeout = absl::Minutes(10);
  absl::Duration unhealthy_after = absl::Seconds(2);
  absl::Duration drain_delay = absl::Seconds(5);
  absl::Duration drain_timeout = absl::Seconds(30);

  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;

  std::string trace_file;  // Empty: no requests are traced.
  double trace_sample = 0.01;
  int64_t trace_file_bytes = 256 << 20;
  double access_log = 0;  // The part of the requests that is logged.

  // Instead of serving.
  bool check_only = false;    // Load everything, say what is wrong, and leave.
  bool print_config = false;  // Done by ParseFlags().
  bool show_version = false;  // Print the versions and leave.

  std::string effective;  // All of it, a line "name: value" for each, as --print-config writes it.
};

}  // namespace millrace
