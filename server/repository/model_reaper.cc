// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_reaper.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// How long a model that gives way may be without a replica: far longer than replacing one takes.
constexpr absl::Duration kPatience = absl::Seconds(10);

}  // namespace

ModelReaper::ModelReaper(Clock& clock, Timer& timer)
    : clock_(clock), timer_(timer), queue_("reaper", 1) {}

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
    alive_[raw] = {std::move(model), std::move(ended), std::nullopt};
  }
  return std::shared_ptr<ServedModel>(
      raw, [this](ServedModel* last) { queue_.Add([this, last] { Reap(last); }); });
}

void ModelReaper::Retire(const std::shared_ptr<ServedModel>& model) {
  MutexLock lock(mutex_);
  if (ending_) return;
  alive_.at(model.get()).next_look = timer_.Schedule(
      clock_.Now() + kPatience, [this, retired = std::weak_ptr(model)] { LookAfter(retired); });
}

void ModelReaper::LookAfter(const std::weak_ptr<ServedModel>& retired) {
  const std::shared_ptr<ServedModel> model = retired.lock();
  if (model == nullptr) return;
  if (model->readiness().ok()) return Retire(model);
  model->GiveUp(absl::UnavailableError(absl::StrCat("model '", model->signature().model_name(),
                                                    "' version ", model->signature().version(),
                                                    " is being unloaded, and has no replica")));
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
  if (reaped.next_look) timer_.Cancel(*reaped.next_look);
  reaped.model.reset();
  reaped.ended();
}

// The requests that are left are answered by this, and drop their shares.
void ModelReaper::EndAll() {
  std::vector<ServedModel*> models;
  std::vector<Timer::Id> looks;
  {
    MutexLock lock(mutex_);
    ending_ = true;
    for (const auto& [model, shared] : alive_) {
      models.push_back(model);
      if (shared.next_look) looks.push_back(*shared.next_look);
    }
  }
  for (const Timer::Id& look : looks) timer_.Cancel(look);
  for (ServedModel* const model : models) model->End();  // This thread is the only one to reap.
}

}  // namespace millrace
