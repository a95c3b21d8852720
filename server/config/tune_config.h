// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/log.h"
#include "server/base/sandbox_mode.h"

namespace millrace {

// What `millrace-server tune` is told, checked. Immutable after ParseFlags().
struct TuneConfig {
  // A model's name, the folder of a model, or that of a repository; empty: all of the repositories.
  std::string model;
  std::vector<std::string> model_repositories;
  absl::Duration budget = absl::Minutes(3);
  bool latency = false;                           // Else throughput,
  absl::Duration slo = absl::InfiniteDuration();  // or, where it is finite, requests within it.
  bool oversubscribe = false;
  bool dry_run = false;
  bool pin = false;
  int max_message_bytes = 64 << 20;
  std::string json;  // A file to be written; empty: none.
  std::string plot;  // The same, a PNG.
  std::string plan;  // The same; empty: where the server looks for it.
  std::string worker_program;
  SandboxMode sandbox = SandboxMode::kOn;
  LogLevel log_level = LogLevel::kWarning;
};

}  // namespace millrace
