// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/app/core_balancer.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/base/log.h"
#include "server/hardware/cpu_list.h"

namespace millrace {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(1);

// "a row takes 2.1 ms to prepare and 6.3 ms to run, so ", by the rows of all models; empty where
// nothing is measured.
std::string DescribeWork(absl::Span<const StageCost> costs) {
  double rows = 0;
  absl::Duration prepare;
  absl::Duration execute;
  for (const StageCost& cost : costs) {
    rows += cost.rows;
    prepare += cost.rows * cost.prepare;
    execute += cost.rows * cost.execute;
  }
  if (rows <= 0) return "";
  return absl::StrFormat("a row takes %.2g ms to prepare and %.2g ms to run, so ",
                         absl::ToDoubleMilliseconds(prepare) / rows,
                         absl::ToDoubleMilliseconds(execute) / rows);
}

}  // namespace

CoreBalancer::CoreBalancer(const Context& context)
    : context_(context),
      watcher_(context.repository->places().budget()),
      slots_(context.repository->places().budget().slots()),
      split_(Whole()),
      looked_(context.clock->Now()),
      busy_(context.transforms->busy()),
      thread_("balancer", [this] { Run(); }) {}

CoreBalancer::~CoreBalancer() {
  MutexLock lock(mutex_);
  stopping_ = true;
  changed_.NotifyAll();
}

void CoreBalancer::Run() {
  Apply(split_, {});
  for (;;) {
    {
      MutexLock lock(mutex_);
      const absl::Time next = looked_ + kInterval;
      while (!stopping_ && context_.clock->Now() < next) {
        context_.clock->WaitUntil(changed_, mutex_, next);
      }
      if (stopping_) return;
    }
    Look();
  }
}

void CoreBalancer::Look() {
  const absl::Time now = context_.clock->Now();
  const absl::Duration busy = context_.transforms->busy();
  const double busy_cores = absl::FDivDuration(busy - busy_, now - looked_);
  looked_ = now;
  busy_ = busy;
  if (const std::optional<CpuBudget> budget = watcher_.Look()) {
    context_.repository->Replan(*budget);
    slots_ = budget->slots();
    split_ = Whole();
  }
  const std::vector<StageCost> costs = TakeCosts();
  const CoreSplit split = context_.fixed ? split_ : SplitCores(slots_, costs, busy_cores, split_);
  Apply(split, costs);
}

CoreSplit CoreBalancer::Whole() const {
  return {.transform = context_.fixed ? context_.transforms->workers() : slots_,
          .replicas = slots_};
}

std::vector<StageCost> CoreBalancer::TakeCosts() {
  std::vector<StageCost> costs;
  std::map<const ServedModel*, int64_t> rows;
  for (const std::shared_ptr<ServedModel>& model : context_.repository->Loaded()) {
    const StageTimes::Medians medians = model->stage_times();
    const auto before = rows_.find(model.get());
    const bool known = before != rows_.end() && before->second <= medians.rows;
    costs.push_back({.prepare = medians.prepare,
                     .execute = medians.execute,
                     .rows = static_cast<double>(medians.rows - (known ? before->second : 0))});
    rows[model.get()] = medians.rows;
  }
  rows_ = std::move(rows);
  return costs;
}

void CoreBalancer::Apply(const CoreSplit& split, absl::Span<const StageCost> costs) {
  std::vector<int> transform_cpus =
      context_.repository->places().PlaceTransformWorkers(split.transform);
  const bool other_workers = split.transform != context_.transforms->limit();
  if (other_workers || transform_cpus != transform_cpus_) {
    context_.transforms->Limit(split.transform, transform_cpus);
  }
  const bool other_batches = split.replicas != split_.replicas;
  if (other_batches) context_.repository->places().SetAside(slots_ - split.replicas);
  if (other_workers || other_batches) {
    LogInfo(DescribeWork(costs), split.transform, " of ", Whole().transform,
            " transform workers may work at a time, on ",
            transform_cpus.empty() ? "any core" : "cores " + FormatCpuList(transform_cpus),
            ", and batches on ", split.replicas, " of ", slots_, " cores");
  }
  split_ = split;
  transform_cpus_ = std::move(transform_cpus);
}

}  // namespace millrace
