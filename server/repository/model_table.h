// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/repository/model_directory.h"

namespace millrace {

class ServedModel;

// How a version stands, as RepositoryIndex tells it.
enum class ModelState {
  kUnavailable,
  kLoading,
  kReady,      // Also while a newer load of it is on its way.
  kUnloading,  // It takes no requests, and finishes those that it has accepted.
};
const char* NameOf(ModelState state);

// Which models there are, which of their versions serve and which shall: the books of a
// ModelRepository. Decides who takes whose place; loads and ends nothing itself. Thread-compatible.
//
// Invariants:
//  1. What serves goes on until what shall take its place serves, or until it shall not be served
//  at
//     all. So a version that the version policy no longer selects leaves when all that it selects,
//     as far as they are on disk, serve.
//  2. Of several loads of a version only the one that was begun last counts.
class ModelTable {
 public:
  using Share = std::shared_ptr<ServedModel>;
  // Shares that the table has given up: to be dropped without the lock that guards the table.
  using Released = std::vector<Share>;

  struct Version {
    ModelVersion on_disk;   // As it was tried last.
    absl::Status problem;   // Why that could not be loaded.
    Share model;            // What serves; null where nothing does.
    uint64_t attempt = 0;   // The load that counts; 0 before the first.
    bool loading = false;   // It isn't finished.
    bool selected = false;  // By the version policy.
    int instances = 0;  // Loads of it that have begun and not ended, the one that serves included.

    ModelState state() const;
  };
  struct Model {
    std::string path;
    absl::Status problem;   // Why the model as a whole can't be loaded as it lies on disk.
    bool removed = false;   // It is no longer on disk.
    bool required = false;  // The server isn't ready without it, as its config said last.
    std::map<int64_t, Version> versions;
  };
  const std::map<std::string, Model>& models() const { return models_; }

  // Makes a model known without loading anything, unless it is known.
  void Add(const ModelDirectory& directory, const absl::Status& why_not_loaded);

  // A load that the caller is to begin.
  struct Begun {
    int64_t version;
    uint64_t attempt;
  };
  // Takes note of how a model lies on disk, and begins loads of the versions that differ from what
  // was tried last; with `again` of all. `released`: versions that leave at once, since all that
  // are selected serve.
  std::vector<Begun> Refresh(const ModelDirectory& directory, bool again, Released& released);

  // Whether a load still counts.
  bool IsCurrent(const std::string& name, int64_t version, uint64_t attempt) const;

  // What a load of the version would take the place of: the version itself, else the newest of the
  // model that serves; null where none does.
  Share Predecessor(const std::string& name, int64_t version) const;

  // A load that was begun has come to its end. True where it counts: then its model serves, or its
  // error is noted. A model that comes must be told to Ended() later, whether it counts or not.
  bool Finish(const std::string& name, int64_t version, uint64_t attempt,
              const absl::StatusOr<Share>& loaded, Released& released);

  // Nothing of the model shall be served, nor of the one `version`; loads that are on their way
  // count no more.
  Released Unload(const std::string& name);
  Released Suspend(const std::string& name, int64_t version);

  // As Unload(), of a model that is no longer on disk: it is forgotten once it has ended.
  Released Remove(const std::string& name);

  // A model that Finish() was given has ended.
  void Ended(const std::string& name, int64_t version);

  // Whether no load of the model is on its way.
  bool IsSettled(const std::string& name) const;
  // Why the model isn't served as it lies on disk; OK where it is.
  absl::Status Outcome(const std::string& name) const;

  // See ModelRepository::Find().
  absl::StatusOr<Share> Find(const std::string& name, const std::string& version) const;

 private:
  Version* FindVersion(const std::string& name, int64_t version);
  Released Release(Model& model);
  void DropSurplus(Model& model, Released& released);
  void Forget(const std::string& name);

  std::map<std::string, Model> models_;
  uint64_t attempts_ = 0;
};

}  // namespace millrace
