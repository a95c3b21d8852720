// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/hardware/nvml.h"
#include "server/hardware/process_groups.h"
#include "server/metrics/metrics_registry.h"
#include "server/metrics/sample.h"
#include "server/repository/placement_book.h"

namespace millrace {

// What the server's process, its workers, its cgroup and the machine's GPUs use, for scrapes.
// Thread-safe.
class ResourceMetrics {
 public:
  struct Options {
    bool gpus = false;    // Ask NVIDIA's management library, where the machine has it.
    bool triton = false;  // Show CPU and memory by Triton's names, too.
  };

  // `registry` says which models there are; it and what else is passed outlive it.
  ResourceMetrics(Options options, Clock& clock, const MetricsRegistry& registry,
                  PlacementBook& places);

  // Every series. Takes a bounded time: see ProcessGroups.
  std::vector<Sample> Collect() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void CollectProcess(std::vector<Sample>& samples) const;
  void CollectWorkers(std::vector<Sample>& samples) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CollectCgroup(std::vector<Sample>& samples) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CollectGpus(std::vector<Sample>& samples) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  Clock& clock_;
  const MetricsRegistry& registry_;
  PlacementBook& places_;
  Mutex mutex_;
  ProcessGroups workers_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Nvml> nvml_ ABSL_GUARDED_BY(mutex_);  // Null: there is none.
  // What the last scrape saw.
  absl::Time looked_ ABSL_GUARDED_BY(mutex_);
  std::optional<double> cpu_seconds_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
