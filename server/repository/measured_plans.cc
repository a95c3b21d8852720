// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/measured_plans.h"

#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/log.h"
#include "server/base/status.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

// Whether a folder holds plans, whosever they are.
bool HoldsPlans(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator file(folder, error); !error && file != fs::directory_iterator();
       file.increment(error)) {
    const std::string name = file->path().filename().string();
    if (absl::StartsWith(name, "plan-") && absl::EndsWith(name, ".json")) return true;
  }
  return false;
}

std::string DescribeTuned(const TunedModel& tuned) {
  const MeasuredBest& best = tuned.best;
  const std::string figures =
      tuned.figures ? absl::StrFormat("%.4g rows/s, p99 %s", tuned.figures->rows_per_second,
                                      absl::FormatDuration(tuned.figures->p99))
                    : "its share of the cores, not measured by itself";
  return absl::StrFormat("%d x %d threads%s%s: %s (%s)", best.replicas, best.threads,
                         best.most_rows > 0 ? absl::StrCat(", ", best.most_rows, " rows") : "",
                         best.mode ? absl::StrCat(", ", NameOf(*best.mode)) : "", figures,
                         tuned.objective);
}

template <typename T>
bool Agree(const std::optional<T>& configured, const T& measured) {
  return configured.value_or(measured) == measured;
}

// Whether the configuration leaves open what measuring found, or says the same.
bool Agrees(const ModelSettings& settings, const MeasuredBest& best) {
  if (settings.instance_groups.size() > 1) return false;
  for (const InstanceGroup& group : settings.instance_groups) {
    if (!Agree(group.count, best.replicas)) return false;
  }
  if (!Agree(settings.intra_op_threads, best.threads)) return false;
  if (!best.mode) return true;
  const ExecutionWishes& wishes = settings.execution;
  return Agree(wishes.bfloat16, best.mode->bfloat16) &&
         Agree(wishes.channels_last, best.mode->channels_last) &&
         Agree(wishes.wait, best.mode->wait) &&
         !(best.mode->bfloat16 && settings.disable_optimized_execution);
}

}  // namespace

MeasuredPlans::Found MeasuredPlans::Look(const ModelSettings& settings,
                                         const ModelVersion& version) {
  if (options_.ignore) return {};
  std::vector<TunedModel> models;
  if (std::optional<TunedPlan> plan = Read(RepositoryOf(version))) models = std::move(plan->models);
  {
    MutexLock lock(mutex_);
    models.insert(models.end(), added_.begin(), added_.end());
  }
  std::map<EngineKind, std::string> hashes;  // Of the files; each is read once.
  Found found;
  for (const TunedModel& tuned : models) {
    if (tuned.model != settings.name) continue;
    found.others = true;
    if (!Agrees(settings, tuned.best)) continue;
    const EngineKind engine = tuned.best.mode ? tuned.best.mode->engine : version.engine;
    const std::optional<ModelVersion> run = VersionOn(version, engine);
    if (!run) continue;
    if (hashes.count(engine) == 0) {
      const absl::StatusOr<std::string> hash = HashOf(*run);
      if (!hash.ok()) return {};  // Loading it says why.
      hashes[engine] = *hash;
    }
    if (hashes[engine] == tuned.sha256) found.best = tuned;  // The last one is the newest.
  }
  return found;
}

std::optional<TunedModel> MeasuredPlans::Find(const ModelSettings& settings,
                                              const ModelVersion& version) {
  Found found = Look(settings, version);
  if (found.best) {
    LogInfo("model '", settings.name, "' version ", version.number,
            " runs as measured on this machine: ", DescribeTuned(*found.best));
  } else if (found.others) {
    LogWarning("model '", settings.name, "' version ", version.number,
               " runs as configured: what the plan has of it was measured with another file, or "
               "contradicts config.pbtxt; measure again with `millrace tune`");
  }
  return std::move(found.best);
}

std::optional<TunedPlan> MeasuredPlans::Read(const std::string& repository) {
  const bool own = options_.file.empty();
  const std::string path = own ? PlanPath(repository, options_.machine) : options_.file;
  absl::StatusOr<TunedPlan> plan = ReadPlanFile(path);
  if (own && absl::IsNotFound(plan.status())) {
    const fs::path folder = fs::path(path).parent_path();
    if (HoldsPlans(folder)) {
      SayOnce(absl::StrCat("models run as configured: the plans in ", folder.string(),
                           " are of other machines; that of this one (", Describe(options_.machine),
                           ") would be ", path));
    }
    return std::nullopt;
  }
  if (!plan.ok()) {
    SayOnce(absl::StrCat("models run as configured, without a plan: ", plan.status().message()));
    return std::nullopt;
  }
  if (plan->machine != options_.machine) {
    SayOnce(absl::StrCat("models run as configured: ", path, " was measured on another machine (",
                         Difference(options_.machine, plan->machine), ")"));
    return std::nullopt;
  }
  return *std::move(plan);
}

void MeasuredPlans::SayOnce(const std::string& text) {
  {
    MutexLock lock(mutex_);
    if (!said_.insert(text).second) return;
  }
  LogWarning(text);
}

}  // namespace millrace
