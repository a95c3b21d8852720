// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_reaper.h"

#include <utility>
#include <vector>

namespace millrace {

ModelReaper::ModelReaper() : queue_("reaper", 1) {}

ModelReaper::~ModelReaper() {
  queue_.Add([this] { EndAll(); });
  MutexLock lock(mutex_);
  while (!alive_.empty()) changed_.Wait(mutex_);
}

std::shared_ptr<ServedModel> ModelReaper::Share(std::unique_ptr<ServedModel> model,
                                                absl::AnyInvocable<void()> ended) {
  ServedModel* const raw = model.get();
  {
    MutexLock lock(mutex_);
    alive_[raw] = {std::move(model), std::move(ended)};
  }
  return std::shared_ptr<ServedModel>(
      raw, [this](ServedModel* last) { queue_.Add([this, last] { Reap(last); }); });
}

void ModelReaper::Reap(ServedModel* model) {
  Shared reaped;
  {
    MutexLock lock(mutex_);
    const auto place = alive_.find(model);
    reaped = std::move(place->second);
    alive_.erase(place);
    changed_.NotifyAll();
  }
  reaped.model.reset();
  reaped.ended();
}

// The requests that are left are answered by this, and drop their shares.
void ModelReaper::EndAll() {
  std::vector<ServedModel*> models;
  {
    MutexLock lock(mutex_);
    for (const auto& [model, shared] : alive_) models.push_back(model);
  }
  for (ServedModel* const model : models) model->End();  // This thread is the only one to reap.
}

}  // namespace millrace
