// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/app/tune_command.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/app/plot_program.h"
#include "server/app/server_app.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/base/timer_thread.h"
#include "server/measuring/repository_tuner.h"
#include "server/measuring/tuning_report.h"
#include "server/replica/child_process.h"
#include "server/replica/model_inspection.h"
#include "server/replica/model_template.h"
#include "server/repository/config_inferrer.h"
#include "server/repository/model_directory.h"
#include "server/tuning/machine_fingerprint.h"
#include "server/tuning/plan_file.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr int kBadArguments = 1;
constexpr int kNothingTuned = 3;
// How often progress is shown.
constexpr absl::Duration kOnTerminal = absl::Milliseconds(100);
constexpr absl::Duration kElsewhere = absl::Seconds(5);

ExitNow Failure(int code, const absl::Status& status) {
  return {code, absl::StrCat("millrace tune: ", status.message(), "\n")};
}

// Says what is measured, and how long it may take.
class Progress {
 public:
  Progress(std::ostream& out, bool is_terminal, absl::Time deadline)
      : out_(out), is_terminal_(is_terminal), deadline_(deadline) {}

  void Show(const std::string& what) {
    const absl::Time now = Clock::Real().Now();
    if (now - shown_at_ < (is_terminal_ ? kOnTerminal : kElsewhere)) return;
    shown_at_ = now;
    const absl::Duration left = std::max(absl::Seconds(1), deadline_ - now);
    out_ << (is_terminal_ ? "\r\x1b[K" : "") << "at most "
         << absl::FormatDuration(absl::Ceil(left, absl::Seconds(1))) << " left  " << what
         << (is_terminal_ ? "" : "\n") << std::flush;
  }

  void Clear() {
    if (is_terminal_) out_ << "\r\x1b[K" << std::flush;
  }

 private:
  std::ostream& out_;
  const bool is_terminal_;
  const absl::Time deadline_;
  absl::Time shown_at_ = absl::InfinitePast();
};

// Which models are to be measured.
absl::StatusOr<std::vector<ModelDirectory>> FindModels(const TuneConfig& config) {
  std::vector<std::string> repositories = config.model_repositories;
  std::string name = config.model;
  if (fs::is_directory(config.model)) {
    fs::path folder = fs::absolute(config.model).lexically_normal();
    if (!folder.has_filename()) folder = folder.parent_path();
    // A folder with a config, or with a package that tells it, is a model, and the one around it
    // its repository.
    const bool is_model =
        fs::exists(folder / "config.pbtxt") || NewestPackage(folder.string()).has_value();
    repositories = {is_model ? folder.parent_path().string() : folder.string()};
    name = is_model ? folder.filename().string() : "";
  } else if (!name.empty() && repositories.empty()) {
    return absl::NotFoundError(
        absl::StrCat("'", name,
                     "' is no folder; give the folder of a model, or its name and the repository's "
                     "folder as --model-repository"));
  }
  if (name.empty()) return ScanRepositories(repositories);
  MILLRACE_ASSIGN_OR_RETURN(ModelDirectory model, FindModelDirectory(repositories, name));
  return std::vector<ModelDirectory>{std::move(model)};
}

Objective ObjectiveOf(const TuneConfig& config) {
  if (config.latency) return {.goal = Objective::Goal::kLatency};
  if (config.slo < absl::InfiniteDuration()) {
    return {.goal = Objective::Goal::kSlo, .limit = config.slo};
  }
  return {.goal = Objective::Goal::kThroughput};
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text << std::flush;
  if (file.good()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(path, " can't be written"));
}

// Measures, writes, and says what was found.
absl::StatusOr<ExitNow> Tune(const TuneConfig& config, std::ostream& progress, bool is_terminal) {
  MILLRACE_ASSIGN_OR_RETURN(std::vector<ModelDirectory> models, FindModels(config));
  if (models.empty()) return absl::NotFoundError("the repository has no models");
  MILLRACE_RETURN_IF_ERROR(BecomeSubreaper());
  const std::string worker_program =
      config.worker_program.empty() ? DefaultWorkerProgram() : config.worker_program;
  MILLRACE_ASSIGN_OR_RETURN(const WorkerDescription worker, DescribeWorker(worker_program));
  const Hardware hardware = DetectAll(worker);
  const MachineFingerprint machine = FingerprintOf(hardware, worker.libtorch_version);
  std::optional<PlotProgram> plot;
  if (!config.plot.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(plot, PlotProgram::Find());
  }

  // As the server does it.
  ConfigInferrer inferrer([&](const ModelVersion& version, int fd, int) {
    return InspectModel({.worker_program = worker_program, .sandbox = config.sandbox},
                        version.engine, version.path, fd);
  });
  for (ModelDirectory& model : models) inferrer.Complete(model);

  TimerThread timer(Clock::Real());
  const absl::Time deadline = Clock::Real().Now() + config.budget;
  Progress shown(progress, is_terminal, deadline);
  absl::StatusOr<std::vector<std::string>> written = std::vector<std::string>();
  RepositoryTuner tuner(
      {.objective = ObjectiveOf(config),
       .oversubscribe = config.oversubscribe,
       .measurer = {.loader = {.worker_program = worker_program,
                               .max_message_bytes = static_cast<size_t>(config.max_message_bytes),
                               .sandbox = config.sandbox},
                    .placement = {.pin = config.pin}},
       .progress = [&](const std::string& what) { shown.Show(what); },
       // At once: what ends the command later costs no plan.
       .found = [&](const TuningReport& report) { written = WritePlans(report, config.plan); }},
      hardware, machine, Clock::Real(), timer);
  if (config.dry_run) {
    return ExitNow{0, absl::StrCat("On ", Describe(machine), "\n", tuner.Describe(models))};
  }
  MILLRACE_RETURN_IF_ERROR(CheckPlans(models, machine, config.plan));
  const TuningReport report = tuner.Tune(models, deadline);
  shown.Clear();

  std::string text = FormatReport(report);
  const bool found = !written.ok() || !written->empty();
  if (found) absl::StrAppend(&text, "\n");
  if (written.ok()) {
    for (const std::string& path : *written) absl::StrAppend(&text, "wrote ", path, "\n");
  } else {
    absl::StrAppend(&text, Failure(kBadArguments, written.status()).text);
  }
  if (!config.json.empty()) {
    MILLRACE_RETURN_IF_ERROR(WriteText(config.json, ReportJson(report)));
    absl::StrAppend(&text, "wrote ", config.json, "\n");
  }
  if (plot) {
    MILLRACE_RETURN_IF_ERROR(plot->Draw(ReportJson(report), config.plot));
    absl::StrAppend(&text, "wrote ", config.plot, "\n");
  }
  return ExitNow{!written.ok() ? kBadArguments : found ? 0 : kNothingTuned, text};
}

}  // namespace

ExitNow RunTuneCommand(const TuneConfig& config, std::ostream& progress, bool is_terminal) {
  ConfigureLog(config.log_level, LogFormat::kText, "millrace-tune");
  absl::StatusOr<ExitNow> done = Tune(config, progress, is_terminal);
  return done.ok() ? *std::move(done) : Failure(kBadArguments, done.status());
}

}  // namespace millrace
