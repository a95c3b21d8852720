// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/metrics/model_metrics.h"

namespace millrace {

// Where clients that balance by load look for it, at the end of a unary call.
inline constexpr char kLoadReportTrailer[] = "endpoint-load-metrics-bin";

// The loads of models, in the form in which answers bring them to clients: a serialised
// proto/load_report.proto. A client weighs a server by its requests per second over its
// utilisation, so both are of the same model and of the same time, the last 15 seconds.
// Thread-safe.
//
// Invariants:
//  1. A report is at most kFresh old, and is made no more often than that, however many ask.
//  2. No more models are remembered than live, or kFewestKept.
class LoadReports {
 public:
  static constexpr absl::Duration kFresh = absl::Milliseconds(100);
  static constexpr size_t kFewestKept = 16;

  // `clock` outlives this.
  explicit LoadReports(Clock& clock) : clock_(clock) {}

  // The report on a model. Rates are 0 in its first one.
  std::shared_ptr<const std::string> Of(const std::shared_ptr<ModelMetrics>& model)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // How many models are remembered.
  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What one model had answered at a moment.
  struct Count {
    absl::Time when;
    uint64_t answers = 0;
    uint64_t failures = 0;
  };
  class Report;

  std::shared_ptr<Report> Find(const std::shared_ptr<ModelMetrics>& model)
      ABSL_LOCKS_EXCLUDED(mutex_);

  Clock& clock_;
  mutable Mutex mutex_;
  absl::flat_hash_map<const ModelMetrics*, std::shared_ptr<Report>> reports_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
