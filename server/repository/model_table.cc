// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

absl::Status WhyNot(const ModelTable::Version& version) {
  switch (version.state()) {
    case ModelState::kLoading:
      return absl::UnavailableError("is being loaded");
    case ModelState::kUnloading:
      return absl::UnavailableError("is being unloaded");
    case ModelState::kUnavailable:
    case ModelState::kReady:
      return version.problem;
  }
  return version.problem;
}

bool IsRequired(const ModelDirectory& directory) {
  return directory.settings && directory.settings->readiness == Readiness::kRequired;
}

void GiveUp(ModelTable::Version& version, ModelTable::Released& released) {
  if (version.model != nullptr) released.push_back(std::move(version.model));
  version.model = nullptr;
}

}  // namespace

const char* NameOf(ModelState state) {
  switch (state) {
    case ModelState::kUnavailable:
      return "UNAVAILABLE";
    case ModelState::kLoading:
      return "LOADING";
    case ModelState::kReady:
      return "READY";
    case ModelState::kUnloading:
      return "UNLOADING";
  }
  return "";
}

ModelState ModelTable::Version::state() const {
  if (model != nullptr) return ModelState::kReady;
  if (loading) return ModelState::kLoading;
  return instances > 0 ? ModelState::kUnloading : ModelState::kUnavailable;
}

// ---- What shall be served ----

void ModelTable::Add(const ModelDirectory& directory, const absl::Status& why_not_loaded) {
  const auto [place, added] = models_.try_emplace(directory.name);
  if (!added) return;
  place->second.path = directory.path;
  place->second.required = IsRequired(directory);
  place->second.problem = why_not_loaded;
}

std::vector<ModelTable::Begun> ModelTable::Refresh(const ModelDirectory& directory, bool again,
                                                   Released& released) {
  std::vector<Begun> begun;
  Model& model = models_[directory.name];
  model.path = directory.path;
  model.removed = false;
  model.problem = directory.status;
  if (!directory.status.ok()) return begun;
  model.required = IsRequired(directory);
  for (auto& [number, version] : model.versions) version.selected = false;
  for (const ModelVersion& on_disk : directory.versions) {
    Version& version = model.versions[on_disk.number];
    version.selected = true;
    if (!again && version.attempt > 0 && version.on_disk.stamp == on_disk.stamp) continue;
    version.on_disk = on_disk;
    version.attempt = ++attempts_;
    version.loading = on_disk.status.ok();
    version.problem = on_disk.status;
    if (!version.loading) continue;
    ++version.instances;
    begun.push_back({on_disk.number, version.attempt});
  }
  DropSurplus(model, released);
  Forget(directory.name);
  return begun;
}

bool ModelTable::IsCurrent(const std::string& name, int64_t version, uint64_t attempt) const {
  const auto model = models_.find(name);
  if (model == models_.end()) return false;
  const auto entry = model->second.versions.find(version);
  return entry != model->second.versions.end() && entry->second.attempt == attempt;
}

ModelTable::Share ModelTable::Predecessor(const std::string& name, int64_t version) const {
  const auto model = models_.find(name);
  if (model == models_.end()) return nullptr;
  const auto itself = model->second.versions.find(version);
  if (itself != model->second.versions.end() && itself->second.model != nullptr) {
    return itself->second.model;
  }
  Share newest;
  for (const auto& [number, other] : model->second.versions) {
    if (other.model != nullptr && !other.selected) newest = other.model;
  }
  return newest;
}

bool ModelTable::Finish(const std::string& name, int64_t number, uint64_t attempt,
                        const absl::StatusOr<Share>& loaded, Released& released) {
  Version* const version = FindVersion(name, number);
  if (!loaded.ok()) --version->instances;
  if (version->attempt != attempt) {
    Forget(name);
    return false;
  }
  version->loading = false;
  version->problem = loaded.status();
  if (loaded.ok()) {
    GiveUp(*version, released);
    version->model = *loaded;
  }
  DropSurplus(models_[name], released);
  return true;
}

ModelTable::Released ModelTable::Suspend(const std::string& name, int64_t number) {
  Released released;
  Model& model = models_[name];
  for (auto& [other, version] : model.versions) {
    if (other == number || !version.selected) GiveUp(version, released);
  }
  return released;
}

ModelTable::Released ModelTable::Unload(const std::string& name) {
  const auto model = models_.find(name);
  if (model == models_.end()) return {};
  Released released = Release(model->second);
  for (auto& [number, version] : model->second.versions) {
    version.problem = absl::UnavailableError("unloaded");
  }
  return released;
}

ModelTable::Released ModelTable::Remove(const std::string& name) {
  const auto model = models_.find(name);
  if (model == models_.end()) return {};
  Released released = Release(model->second);
  model->second.removed = true;
  Forget(name);
  return released;
}

ModelTable::Released ModelTable::Release(Model& model) {
  Released released;
  for (auto& [number, version] : model.versions) {
    version.attempt = ++attempts_;
    version.on_disk.stamp.clear();
    version.loading = version.selected = false;
    GiveUp(version, released);
  }
  return released;
}

void ModelTable::DropSurplus(Model& model, Released& released) {
  bool any = false;
  for (const auto& [number, version] : model.versions) {
    if (!version.selected || !version.on_disk.status.ok()) continue;
    if (version.model == nullptr) return;
    any = true;
  }
  if (!any) return;
  for (auto& [number, version] : model.versions) {
    if (version.selected) continue;
    version.attempt = ++attempts_;
    version.loading = false;
    GiveUp(version, released);
  }
}

void ModelTable::Ended(const std::string& name, int64_t number) {
  Version* const version = FindVersion(name, number);
  if (version == nullptr) return;
  --version->instances;
  Forget(name);
}

// Entries that say nothing any more: of models that are gone, and of versions in whose place others
// are.
void ModelTable::Forget(const std::string& name) {
  const auto model = models_.find(name);
  std::map<int64_t, Version>& versions = model->second.versions;
  const bool others = std::any_of(versions.begin(), versions.end(),
                                  [](const auto& entry) { return entry.second.selected; });
  std::erase_if(versions, [&](const auto& entry) {
    const Version& version = entry.second;
    return (others || model->second.removed) && !version.selected && version.model == nullptr &&
           !version.loading && version.instances == 0;
  });
  if (model->second.removed && versions.empty()) models_.erase(model);
}

// ---- What is served ----

ModelTable::Version* ModelTable::FindVersion(const std::string& name, int64_t version) {
  const auto model = models_.find(name);
  if (model == models_.end()) return nullptr;
  const auto entry = model->second.versions.find(version);
  return entry == model->second.versions.end() ? nullptr : &entry->second;
}

bool ModelTable::IsSettled(const std::string& name) const {
  const auto model = models_.find(name);
  return model == models_.end() ||
         std::none_of(model->second.versions.begin(), model->second.versions.end(),
                      [](const auto& entry) { return entry.second.loading; });
}

absl::Status ModelTable::Outcome(const std::string& name) const {
  const auto model = models_.find(name);
  if (model == models_.end()) return absl::NotFoundError("it is no longer there");
  MILLRACE_RETURN_IF_ERROR(model->second.problem);
  for (const auto& [number, version] : model->second.versions) {
    if (!version.problem.ok()) return Annotate(version.problem, absl::StrCat("version ", number));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelTable::Share> ModelTable::Find(const std::string& name,
                                                   const std::string& version) const {
  const auto found = models_.find(name);
  if (found == models_.end()) {
    return absl::NotFoundError(absl::StrCat("unknown model '", name.substr(0, 128),
                                            "'; RepositoryIndex lists the ", models_.size(),
                                            " that there are"));
  }
  const Model& model = found->second;
  const auto unavailable = [&](const absl::Status& why) {
    return absl::UnavailableError(
        absl::StrCat("model '", name, "' can't be served: ", why.message()));
  };
  if (version.empty()) {
    for (auto entry = model.versions.rbegin(); entry != model.versions.rend(); ++entry) {
      if (entry->second.model != nullptr) return entry->second.model;
    }
    if (!model.problem.ok()) return unavailable(model.problem);
    if (model.versions.empty()) return unavailable(absl::UnavailableError("it has no version"));
    return unavailable(WhyNot(model.versions.rbegin()->second));
  }
  int64_t number = 0;
  const bool numeric = absl::SimpleAtoi(version, &number);
  const auto entry = numeric ? model.versions.find(number) : model.versions.end();
  if (entry == model.versions.end()) {
    if (!model.problem.ok()) return unavailable(model.problem);
    return absl::NotFoundError(
        absl::StrCat("model '", name, "' has no version '", version.substr(0, 64), "'"));
  }
  if (entry->second.model == nullptr) return unavailable(WhyNot(entry->second));
  return entry->second.model;
}

}  // namespace millrace
