// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/sandbox_mode.h"
#include "server/base/timer.h"
#include "server/base/unique_fd.h"
#include "server/base/work_queue.h"
#include "server/dispatch/core_leases.h"
#include "server/dispatch/memory_budget.h"
#include "server/hardware/hardware.h"
#include "server/hardware/memory.h"
#include "server/metrics/metrics_registry.h"
#include "server/placement/placement.h"
#include "server/repository/config_inferrer.h"
#include "server/repository/measured_plans.h"
#include "server/repository/model_control.h"
#include "server/repository/model_loader.h"
#include "server/repository/model_reaper.h"
#include "server/repository/model_table.h"
#include "server/repository/model_watcher.h"
#include "server/repository/placement_book.h"
#include "server/repository/served_model.h"

namespace millrace {

// The models that the server offers: read from disk, placed on this machine's cores and GPUs,
// loaded, found by name and version, and swapped for newer ones while they serve. Thread-safe.
//
// One thread (the keeper) reads the disk and decides what shall be served, a few (the loaders)
// load, one (the mover) brings replicas to where a new plan has them, one (the reaper) ends what
// nobody uses any more. ModelTable keeps the books.
class ModelRepository {
 public:
  struct Options {
    std::vector<std::string> directories;
    ModelControl control;
    ModelLoader::Options loader;
    int64_t max_queue_bytes = int64_t{1} << 30;  // Of payloads that are held, over all models.
    std::vector<std::string> required_models;    // Besides those whose config says so.
    PlacementOptions placement;
    MeasuredPlans::Options plans;
    // Bytes that the server and its workers may still take.
    std::function<int64_t()> available_memory = [] { return AvailableMemoryBytes("/"); };
  };
  // All of it outlives the repository.
  struct Context {
    Clock* clock;
    Timer* timer;
    MetricsRegistry* metrics;
    Preparers* preparers;  // Of the inputs of models with a transform.
    // A model may have become ready or unready. Called on any thread; must not block. May be empty.
    std::function<void()> on_change;
  };

  ModelRepository(Options options, Hardware hardware, Context context);

  // Ends every model. REQUIRES: nobody submits requests any more.
  ~ModelRepository();

  // Scans the directories, says what is about to be loaded (see Find()), prints the placement plan
  // to the log, and loads the models that are to serve from the start. Blocks until each is loaded
  // or refused; a model that can't be served is listed with the reason and hinders no other. An
  // error where a directory can't be read. Call once.
  absl::Status Start() ABSL_LOCKS_EXCLUDED(mutex_);

  // The models that Start() will load and of which nothing was measured on this machine, with these
  // versions; and what was measured of them meanwhile, for Start() to go by. Both are called before
  // it. From then on Find() knows of all models. Blocks on the disk, and for as long as models
  // without config.pbtxt are inspected.
  absl::StatusOr<std::vector<ModelDirectory>> Unmeasured();
  void AddMeasured(const std::vector<TunedModel>& models) { plans_.Add(models); }

  // Told when a load or unload is over.
  using Done = absl::AnyInvocable<void(const absl::Status&)>;

  // Reads a model from disk and loads it, beside what serves of it until then. Never blocks; `done`
  // is called on another thread, or on this one, once it serves, or with the reason why not: then
  // what served before goes on. `config` (the text of a config.pbtxt) is taken instead of the
  // file's. Once `given_up`, an eventfd, is readable, a file is no longer inspected for what it
  // takes: then CANCELLED; a load that has begun goes on. FAILED_PRECONDITION where models are
  // controlled otherwise; see ModelControl.
  void LoadModel(const std::string& name, std::optional<std::string> config, Done done,
                 std::shared_ptr<const UniqueFd> given_up) ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes a model out of service. `done` is called when it takes no more requests; it finishes
  // those that it has accepted. Otherwise as LoadModel().
  void UnloadModel(const std::string& name, Done done) ABSL_LOCKS_EXCLUDED(mutex_);

  // Loads, swaps, unloads and moves nothing any more, cancels loads and inspections that are going
  // on, answers those who wait for one with UNAVAILABLE. Blocks shortly. May be called again.
  void StopChanges() ABSL_LOCKS_EXCLUDED(mutex_);

  // Has the repository looked through at once, where it is watched; false where it isn't, since
  // models change by calls only, or not at all. Call on the thread that calls StopChanges().
  bool LookAgain();

  // The model version that serves `version` of `name`; an empty version means the newest that is
  // loaded. NOT_FOUND for a model or version that doesn't exist, UNAVAILABLE with the reason for
  // one that isn't loaded.
  absl::StatusOr<std::shared_ptr<ServedModel>> Find(const std::string& name,
                                                    const std::string& version) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Where the replicas run, and how wide the core leases are.
  PlacementBook& places() { return places_; }

  // The CPU budget is another: plans all models anew. The leases follow at once; then the replicas,
  // a model after the other, on a thread of the repository's. GPU replicas stay as they are.
  void Replan(const CpuBudget& budget);

  // Payload bytes that the requests of all models hold, and how many they may hold.
  const MemoryBudget& memory() const { return memory_; }

  // A line of RepositoryIndex.
  struct IndexEntry {
    std::string name;
    std::string version;  // Empty where the model as a whole is refused.
    ModelState state;
    std::string reason;  // Of a model that is READY: what is wrong with the newer one.
  };
  std::vector<IndexEntry> Index() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The versions of `name` that are loaded, ascending. NOT_FOUND for an unknown model.
  absl::StatusOr<std::vector<std::string>> Versions(const std::string& name) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Every loaded model version, by name and version.
  std::vector<std::shared_ptr<ServedModel>> Loaded() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The names of all models, loaded or not.
  std::vector<std::string> Names() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Why the server isn't ready: a model that is required isn't loaded, or one that is loaded and
  // not optional isn't ready. OK otherwise.
  absl::Status Readiness() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What lies on disk, all of it made known, with why it doesn't serve yet.
  absl::StatusOr<std::vector<ModelDirectory>> Scan() ABSL_LOCKS_EXCLUDED(mutex_);
  bool IsLoadedAtStart(const std::string& name) const;
  // Has the keeper do something, and waits for it.
  void DoOnKeeper(const std::function<void()>& task) ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- On the keeper ----

  void LoadNow(const std::string& name, const std::optional<std::string>& config, Done done,
               int given_up) ABSL_LOCKS_EXCLUDED(mutex_);
  void UnloadNow(const std::string& name, Done done) ABSL_LOCKS_EXCLUDED(mutex_);
  // Brings what serves in line with what is on disk.
  void Follow(const std::vector<std::string>& names) ABSL_LOCKS_EXCLUDED(mutex_);
  // Begins to load what differs from what serves; with `again` everything.
  void Apply(const std::vector<ModelDirectory>& directories, bool again)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Finds out how each of `tasks` is run best, and puts what was measured, its mode, and the file
  // that then runs, into it. Returns for a budget of how many cores that is.
  double Measure(std::vector<LoadTask>& tasks);
  // Where the models run whose places `tasks` will take.
  std::set<const PlacementClaim*> PlacesLeftBy(const std::vector<LoadTask>& tasks)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- On a loader ----

  void Load(LoadTask& task) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<ServedModel>> TryLoad(const LoadTask& task)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Sees to it that there is memory for the load beside `predecessor`: where there isn't, ends that
  // first and resets it, if the config allows it, else RESOURCE_EXHAUSTED. Blocks until it has
  // ended.
  absl::Status MakeRoom(const LoadTask& task, std::shared_ptr<ServedModel>& predecessor)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- On the mover ----

  // Brings a model that serves to where it is planned by now. Nobody else does, so the plan that is
  // followed last is the newest.
  void MoveToPlan(const std::shared_ptr<ServedModel>& model) ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- Anywhere ----

  void Finish(const LoadTask& task, const absl::StatusOr<std::shared_ptr<ServedModel>>& loaded)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Ended(const LoadTask& task, const ServedModel* model) ABSL_LOCKS_EXCLUDED(mutex_);
  // Answers those who wait for a model of which no load is going on.
  void AnswerWaiting(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);
  // Drops the repository's shares of models that have given way.
  void Retire(ModelTable::Released& released);
  void Tell();
  // The names of those without which the server isn't ready.
  std::vector<std::string> RequiredModels() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckControl() const;

  const Options options_;
  const Context context_;
  MemoryBudget memory_;
  CoreLeases leases_;
  PlacementBook places_;
  MeasuredPlans plans_;  // The keeper's.
  ModelLoader loader_;
  ConfigInferrer inferrer_;  // The keeper's.

  mutable Mutex mutex_;
  mutable CondVar changed_;
  ModelTable table_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> scanned_ ABSL_GUARDED_BY(mutex_);  // The names that the last scan found.
  std::map<const ServedModel*, const PlacementClaim*> place_of_ ABSL_GUARDED_BY(mutex_);
  std::multimap<std::string, Done> waiting_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<ServedModel> moving_ ABSL_GUARDED_BY(mutex_);  // By the mover.
  bool started_ ABSL_GUARDED_BY(mutex_) = false;                 // Start() is over.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::unique_ptr<ModelReaper> reaper_;
  std::unique_ptr<WorkQueue> mover_;
  std::unique_ptr<WorkQueue> loaders_;
  std::unique_ptr<WorkQueue> keeper_;
  std::unique_ptr<ModelWatcher> watcher_;  // Null where nobody watches.
};

}  // namespace millrace
