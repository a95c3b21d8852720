// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/load_reports.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "proto/load_report.pb.h"

namespace millrace {
namespace {

constexpr absl::Duration kWindow = absl::Seconds(15);
constexpr int kCodes = 17;

}  // namespace

// That on one model. Thread-safe.
class LoadReports::Report {
 public:
  explicit Report(const std::shared_ptr<ModelMetrics>& model) : model_(model) {}

  // Whether it is on `model`, and not on one that lived at the same address before.
  bool IsOn(const std::shared_ptr<ModelMetrics>& model) const {
    return !model_.owner_before(model) && !model.owner_before(model_);
  }
  bool IsOnNone() const { return model_.expired(); }

  std::shared_ptr<const std::string> Get(const ModelMetrics& model, absl::Time now)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    if (text_ == nullptr || now >= made_ + kFresh) {
      made_ = now;
      text_ = std::make_shared<const std::string>(Make(model, now).SerializeAsString());
    }
    return text_;
  }

 private:
  v1::LoadReport Make(const ModelMetrics& model, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::LoadReport report;
    AddRates(model, now, report);
    const std::optional<ModelGauges> gauges = model.Gauges();
    if (!gauges) return report;  // It has ended, and answers what is left.
    report.set_application_utilization(model.Saturation(*gauges));
    auto& named = *report.mutable_named_metrics();
    named["desired_replicas_ratio"] = model.DesiredReplicas(*gauges);
    named["predicted_wait_seconds"] = absl::ToDoubleSeconds(gauges->predicted_wait);
    named["in_flight_requests"] = static_cast<double>(gauges->in_flight);
    return report;
  }

  // Since the last count before the window, or the first one.
  void AddRates(const ModelMetrics& model, absl::Time now, v1::LoadReport& report)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Count count = {.when = now};
    for (int code = 0; code < kCodes; ++code) {
      const uint64_t answers = model.answers(static_cast<absl::StatusCode>(code));
      count.answers += answers;
      if (code != 0) count.failures += answers;
    }
    while (counts_.size() > 1 && counts_[1].when <= now - kWindow) counts_.pop_front();
    if (!counts_.empty()) {
      const Count& since = counts_.front();
      const double seconds = absl::ToDoubleSeconds(now - since.when);
      report.set_rps_fractional(static_cast<double>(count.answers - since.answers) / seconds);
      report.set_eps(static_cast<double>(count.failures - since.failures) / seconds);
    }
    counts_.push_back(count);
  }

  const std::weak_ptr<const ModelMetrics> model_;
  Mutex mutex_;
  absl::Time made_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const std::string> text_ ABSL_GUARDED_BY(mutex_);
  std::deque<Count> counts_ ABSL_GUARDED_BY(mutex_);  // Within the window, and one before it.
};

std::shared_ptr<const std::string> LoadReports::Of(const std::shared_ptr<ModelMetrics>& model) {
  return Find(model)->Get(*model, clock_.Now());
}

std::shared_ptr<LoadReports::Report> LoadReports::Find(const std::shared_ptr<ModelMetrics>& model) {
  MutexLock lock(mutex_);
  const auto found = reports_.find(model.get());
  if (found != reports_.end() && found->second->IsOn(model)) return found->second;
  if (reports_.size() >= kFewestKept) {
    absl::erase_if(reports_, [](const auto& entry) { return entry.second->IsOnNone(); });
  }
  return reports_[model.get()] = std::make_shared<Report>(model);
}

size_t LoadReports::size() const {
  MutexLock lock(mutex_);
  return reports_.size();
}

}  // namespace millrace
