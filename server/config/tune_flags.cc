// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/config/tune_flags.h"

#include <map>

#include "server/config/flag_kinds.h"

namespace millrace {

CLI::App* AddTuneCommand(CLI::App& app, TuneConfig& config) {
  CLI::App* const tune = app.add_subcommand(
      "tune", "Measure how models run best on this machine, and write a plan for the server");
  tune->add_option("model", config.model,
                   "A model of the repository, the folder of a model, or that of a repository; "
                   "default: every model of --model-repository");
  tune->add_option("--model-repository", config.model_repositories,
                   "Directory of models; may be given several times")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory);
  AddDuration(*tune, "--budget", &config.budget, "How long may be measured, over all models");
  CLI::Option* const throughput =
      tune->add_flag("--throughput")
          ->description("Find the most rows per second under full load; the default");
  CLI::Option* const latency =
      tune->add_flag("--latency", config.latency, "Find the lowest p99 of one request at a time");
  AddDuration(*tune, "--slo", &config.slo,
              "Find the most requests per second, at random times, whose p99 is within this");
  CLI::Option* const slo = tune->get_option("--slo");
  throughput->excludes(latency)->excludes(slo);
  latency->excludes(slo);
  tune->add_flag("--oversubscribe", config.oversubscribe,
                 "Also measure more threads than there are cores, to see what they cost");
  tune->add_flag("--dry-run", config.dry_run, "Only say what would be measured");
  tune->add_option("--json", config.json, "Write every figure to this file")->type_name("FILE");
  tune->add_option("--plot", config.plot,
                   "Draw throughput and latency of every plan into this PNG file; takes a Python "
                   "with matplotlib")
      ->type_name("FILE");
  tune->add_option("--plan", config.plan,
                   "Write the plan to this file; default: into the repository, where the server "
                   "looks for it")
      ->type_name("FILE");
  tune->add_flag("--pin", config.pin, "Pin replicas, as the server's flag of this name");
  AddMaxMessageBytes(*tune, &config.max_message_bytes,
                     "The largest message that the server takes, as its flag of this name");
  AddWorkerProgram(*tune, &config.worker_program);
  AddSandbox(*tune, &config.sandbox);
  AddLogLevel(*tune, &config.log_level, "warning");
  return tune;
}

void CheckTune(const TuneConfig& config) {
  if (config.model.empty() && config.model_repositories.empty()) {
    throw CLI::RequiredError("tune: a model, or --model-repository");
  }
  if (config.budget <= absl::ZeroDuration()) {
    throw CLI::ValidationError("--budget", "expected more than 0s");
  }
  if (config.slo <= absl::ZeroDuration()) {
    throw CLI::ValidationError("--slo", "expected more than 0s");
  }
}

}  // namespace millrace
