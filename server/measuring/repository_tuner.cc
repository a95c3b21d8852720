// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/repository_tuner.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/measuring/core_shares.h"
#include "server/measuring/tuning_space.h"

namespace millrace {
namespace {

// A quota is handed out in periods of a tenth of a second: a run must last several of them.
Search::Options SearchOptionsFor(const CpuBudget& cpu) {
  Search::Options options;
  if (cpu.quota < static_cast<double>(cpu.cpus.size())) {
    options.shortest_run = absl::Milliseconds(400);
  }
  return options;
}

// The most replicas that any candidate has.
int MostReplicas(const TuningSpace& space) {
  int most = space.cores;
  for (const Candidate& each : Layouts(space, space.modes.front())) {
    most = std::max(most, each.replicas);
  }
  return most;
}

// What was measured of `chosen` as it is to run.
std::optional<Figures> FiguresOf(const TunedVersion& tuned, const Objective& objective) {
  const ModelTuning& tuning = tuned.tuning;
  std::optional<Trial> trial;
  if (objective.goal == Objective::Goal::kSlo) {
    // A full load, under which all of them were compared, says nothing of the limit.
    if (tuned.chosen == tuning.measured.front().candidate) trial = tuning.verified;
  } else {
    for (const Measured& each : tuning.measured) {
      if (each.candidate == tuned.chosen && each.is_sound()) trial = each.trial;
    }
  }
  if (!trial) return std::nullopt;
  return Figures{.rows_per_second = trial->rows_per_second, .p99 = trial->p99};
}

// The plan that lies there, to be added to; an empty one where there is none.
absl::StatusOr<TunedPlan> PlanToAddTo(const std::string& path, const MachineFingerprint& machine) {
  absl::StatusOr<TunedPlan> plan = ReadPlanFile(path);
  if (absl::IsNotFound(plan.status())) return TunedPlan{.machine = machine, .models = {}};
  if (!plan.ok() || plan->machine == machine) return plan;
  return absl::FailedPreconditionError(
      absl::StrCat(path, " was measured on another machine (", Difference(machine, plan->machine),
                   ") and is left as it is; name another file for this one, or delete it"));
}

}  // namespace

RepositoryTuner::RepositoryTuner(Options options, Hardware hardware, MachineFingerprint machine,
                                 Clock& clock, Timer& timer)
    : options_(std::move(options)),
      hardware_(std::move(hardware)),
      machine_(std::move(machine)),
      clock_(clock),
      timer_(timer) {}

TuningReport RepositoryTuner::Tune(absl::Span<const ModelDirectory> models, absl::Time deadline) {
  size_t left = 0;
  for (const ModelDirectory& directory : models)
    left += std::max<size_t>(1, directory.versions.size());
  hashes_.clear();
  TuningReport report = {.machine = machine_, .objective = options_.objective, .models = {}};
  for (const ModelDirectory& directory : models) {
    if (!directory.status.ok()) {
      report.models.push_back({.model = directory.name, .status = directory.status});
      --left;
      continue;
    }
    for (const ModelVersion& version : directory.versions) {
      // What one doesn't need is left to those after it.
      const absl::Time now = clock_.Now();
      const absl::Time mine = now + (deadline - now) / static_cast<int64_t>(left--);
      report.models.push_back(TuneOne(directory, version, {.mine = mine, .last = deadline}));
      if (!report.models.back().status.ok()) continue;
      Share(report.models);
      for (TunedVersion& each : report.models) {
        if (each.status.ok()) each.status = Hash(each);
      }
      options_.found(report);
    }
  }
  return report;
}

TunedVersion RepositoryTuner::TuneOne(const ModelDirectory& directory, const ModelVersion& version,
                                      Deadlines deadlines) {
  TunedVersion tuned = {.model = directory.name,
                        .version = version,
                        .max_batch_size = directory.settings->max_batch_size,
                        .status = version.status};
  if (!tuned.status.ok()) return tuned;
  tuned.status = clock_.Now() < deadlines.last
                     ? Measure(*directory.settings, deadlines, tuned)
                     : absl::DeadlineExceededError("no time was left to measure it; give more");
  return tuned;
}

absl::Status RepositoryTuner::Measure(const ModelSettings& settings, Deadlines deadlines,
                                      TunedVersion& tuned) {
  MILLRACE_ASSIGN_OR_RETURN(TuningSpace space, TuningSpaceOf(settings, tuned.version, hardware_));
  PoolMeasurer::Options measured_with = options_.measurer;
  measured_with.most_replicas = MostReplicas(space);
  measured_with.deadline = deadlines.last;
  MILLRACE_ASSIGN_OR_RETURN(const auto measurer,
                            PoolMeasurer::Create(std::move(measured_with), hardware_, settings,
                                                 tuned.version, clock_, timer_));
  ModelTuner tuner(
      {.space = std::move(space),
       .objective = options_.objective,
       .oversubscribe = options_.oversubscribe,
       .search = SearchOptionsFor(hardware_.cpu)},
      clock_, *measurer, [&](const std::string& what) {
        options_.progress(absl::StrCat(tuned.model, " version ", tuned.version.number, ": ", what));
      });
  MILLRACE_ASSIGN_OR_RETURN(tuned.tuning, tuner.Tune(deadlines.mine));
  tuned.chosen = tuned.tuning.measured.front().candidate;
  return absl::OkStatus();
}

absl::Status RepositoryTuner::Hash(TunedVersion& tuned) {
  const ModelVersion file =
      VersionOn(tuned.version, tuned.chosen.mode->engine).value_or(tuned.version);
  std::string& hash = hashes_[file.path];
  if (hash.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(hash, HashOf(file));
  }
  tuned.sha256 = hash;
  return absl::OkStatus();
}

void RepositoryTuner::Share(std::vector<TunedVersion>& models) const {
  if (options_.objective.goal == Objective::Goal::kLatency) return;
  const int cores = hardware_.cpu.most_slots();
  std::vector<TunedVersion*> sharing;
  std::vector<std::vector<double>> curves;
  for (TunedVersion& each : models) {
    if (!each.status.ok()) continue;
    sharing.push_back(&each);
    curves.push_back(CurveOf(each.tuning, cores));
  }
  if (sharing.size() < 2) return;
  const std::vector<int> shares = ShareCores(curves, cores);
  for (size_t i = 0; i < sharing.size(); ++i) {
    sharing[i]->chosen = BestWithin(sharing[i]->tuning, shares[i]);
  }
}

std::string RepositoryTuner::Describe(absl::Span<const ModelDirectory> models) const {
  std::string text;
  for (const ModelDirectory& directory : models) {
    if (!directory.status.ok()) {
      absl::StrAppend(&text, directory.name, ": ", directory.status.message(), "\n");
      continue;
    }
    for (const ModelVersion& version : directory.versions) {
      absl::StrAppend(&text, directory.name, " version ", version.number, ": ");
      absl::Status status = version.status;
      absl::StatusOr<TuningSpace> space = TuningSpaceOf(*directory.settings, version, hardware_);
      if (status.ok()) status = space.status();
      if (!status.ok()) {
        absl::StrAppend(&text, "is not measured: ", status.message(), "\n");
        continue;
      }
      const std::vector<Candidate> candidates =
          LayoutsAndBatches(*space, options_.objective, space->modes.front());
      absl::StrAppend(&text, "modes: ", space->modes.size(),
                      ", layouts and batch sizes: ", candidates.size(), "\n");
      for (const ExecutionMode& mode : space->modes) {
        absl::StrAppend(&text, "  ", NameOf(mode), "\n");
      }
      for (const Candidate& each : candidates) {
        absl::StrAppend(&text, "  ", NameOf(each, space->max_batch_size), "\n");
      }
    }
  }
  return text;
}

TunedPlan PlanOf(const TuningReport& report) {
  TunedPlan plan = {.machine = report.machine, .models = {}};
  for (const TunedVersion& each : report.models) {
    if (!each.status.ok()) continue;
    // Versions may have the same file.
    std::erase_if(plan.models, [&](const TunedModel& other) {
      return other.model == each.model && other.sha256 == each.sha256;
    });
    plan.models.push_back({.model = each.model,
                           .sha256 = each.sha256,
                           .objective = report.objective.ToString(),
                           .best = each.chosen,
                           .figures = FiguresOf(each, report.objective)});
  }
  return plan;
}

TunedPlan Merge(const TunedPlan& plan, const TunedPlan& newer) {
  TunedPlan merged = {.machine = newer.machine, .models = {}};
  for (const TunedModel& each : plan.models) {
    const bool again =
        std::any_of(newer.models.begin(), newer.models.end(), [&](const TunedModel& other) {
          return other.model == each.model && other.sha256 == each.sha256;
        });
    if (!again) merged.models.push_back(each);
  }
  merged.models.insert(merged.models.end(), newer.models.begin(), newer.models.end());
  return merged;
}

absl::Status CheckPlans(absl::Span<const ModelDirectory> models, const MachineFingerprint& machine,
                        const std::string& file) {
  if (!file.empty()) return PlanToAddTo(file, machine).status();
  for (const ModelDirectory& model : models) {
    const std::string repository = std::filesystem::path(model.path).parent_path().string();
    MILLRACE_RETURN_IF_ERROR(PlanToAddTo(PlanPath(repository, machine), machine).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> WritePlans(const TuningReport& report,
                                                    const std::string& file) {
  std::map<std::string, TuningReport> reports;  // By the path of the plan.
  for (const TunedVersion& each : report.models) {
    if (!each.status.ok()) continue;
    const std::string path =
        file.empty() ? PlanPath(RepositoryOf(each.version), report.machine) : file;
    TuningReport& part = reports[path];
    part.machine = report.machine;
    part.objective = report.objective;
    part.models.push_back(each);
  }
  std::vector<std::string> written;
  for (const auto& [path, part] : reports) {
    MILLRACE_ASSIGN_OR_RETURN(const TunedPlan known, PlanToAddTo(path, part.machine));
    MILLRACE_RETURN_IF_ERROR(WritePlanFile(path, Merge(known, PlanOf(part))));
    written.push_back(path);
  }
  return written;
}

}  // namespace millrace
