// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/app/resource_metrics.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/hardware/number_file.h"
#include "server/hardware/resource_usage.h"

namespace millrace {
namespace {

constexpr char kRoot[] = "/";

template <typename Number>
void Add(std::vector<Sample>& samples, const Metric& metric, const std::optional<Number>& value,
         std::vector<std::string> labels = {}) {
  if (value) samples.push_back({&metric, std::move(labels), static_cast<double>(*value)});
}

}  // namespace

ResourceMetrics::ResourceMetrics(Options options, Clock& clock, const MetricsRegistry& registry,
                                 PlacementBook& places)
    : options_(options),
      clock_(clock),
      registry_(registry),
      places_(places),
      workers_(clock, kRoot),
      nvml_(options.gpus ? Nvml::Load() : nullptr),
      looked_(clock.Now()),
      cpu_seconds_(ReadCgroupUsage(kRoot).cpu_seconds) {
  if (options.gpus && nvml_ == nullptr) {
    LogWarning("GPUs are served from, but ", Nvml::kLibrary,
               " can't be used: how full and how busy they are is not among the metrics");
  }
}

std::vector<Sample> ResourceMetrics::Collect() {
  std::vector<Sample> samples;
  MutexLock lock(mutex_);
  CollectWorkers(samples);
  CollectCgroup(samples);
  CollectGpus(samples);
  CollectProcess(samples);
  return samples;
}

void ResourceMetrics::CollectWorkers(std::vector<Sample>& samples) {
  std::vector<std::vector<std::string>> labels;
  std::vector<ProcessGroups::Group> groups;
  for (const std::shared_ptr<const ModelMetrics>& model : registry_.Models()) {
    std::optional<ModelGauges> gauges = model->Gauges();
    if (!gauges) continue;
    labels.push_back({model->model(), model->version()});
    groups.push_back(
        {absl::StrCat(model->model(), "/", model->version()), std::move(gauges->pids)});
  }
  const std::vector<ProcessGroups::Usage> usages = workers_.Look(groups);
  for (size_t i = 0; i < usages.size(); ++i) {
    samples.push_back({&kWorkerCpuTotal, labels[i], usages[i].cpu_seconds});
    samples.push_back({&kWorkerMemory, labels[i], static_cast<double>(usages[i].memory_bytes)});
  }
}

void ResourceMetrics::CollectCgroup(std::vector<Sample>& samples) {
  const CgroupUsage usage = ReadCgroupUsage(kRoot);
  Add(samples, kCgroupCpuTotal, usage.cpu_seconds);
  Add(samples, kCgroupPeriodsTotal, usage.periods);
  Add(samples, kCgroupThrottledPeriodsTotal, usage.throttled_periods);
  Add(samples, kCgroupThrottledTotal, usage.throttled_seconds);
  Add(samples, kCgroupMemory, usage.memory_bytes);
  Add(samples, kCgroupWorkingSet, usage.working_set_bytes);
  Add(samples, kCgroupMemoryLimit, usage.memory_limit_bytes);
  Add(samples, kCgroupOomKillsTotal, usage.oom_kills);
  const absl::Time now = clock_.Now();
  const absl::Duration passed = now - std::exchange(looked_, now);
  const std::optional<double> before = std::exchange(cpu_seconds_, usage.cpu_seconds);
  if (!options_.triton) return;
  if (before && usage.cpu_seconds && passed > absl::ZeroDuration()) {
    const double cores = (*usage.cpu_seconds - *before) / absl::ToDoubleSeconds(passed);
    const double share = cores / places_.budget().cores();
    samples.push_back({&kTritonCpuUtilisation, {}, std::clamp(share, 0.0, 1.0)});
  }
  std::optional<int64_t> total = usage.memory_limit_bytes;
  if (!total) {
    if (const auto kilobytes = ReadNumberAfter("MemTotal", "/proc/meminfo")) {
      total = *kilobytes * 1024;
    }
  }
  Add(samples, kTritonMemoryTotal, total);
  Add(samples, kTritonMemoryUsed, usage.working_set_bytes);
}

void ResourceMetrics::CollectGpus(std::vector<Sample>& samples) const {
  if (nvml_ == nullptr) return;
  for (const Nvml::Gpu& gpu : nvml_->Read()) {
    const std::vector<std::string> labels = {absl::StrCat(gpu.index), gpu.uuid};
    Add(samples, kGpuUtilisation, gpu.utilisation, labels);
    Add(samples, kGpuMemoryUsed, gpu.memory_used_bytes, labels);
    Add(samples, kGpuMemoryTotal, gpu.memory_total_bytes, labels);
    Add(samples, kGpuPower, gpu.power_watts, labels);
  }
}

void ResourceMetrics::CollectProcess(std::vector<Sample>& samples) const {
  if (const std::optional<ProcessUsage> usage = ReadProcessUsage(kRoot, getpid())) {
    samples.push_back({&kProcessCpuTotal, {}, usage->cpu_seconds});
    samples.push_back({&kProcessResident, {}, static_cast<double>(usage->resident_bytes)});
    samples.push_back({&kProcessVirtual, {}, static_cast<double>(usage->virtual_bytes)});
    samples.push_back({&kProcessThreads, {}, static_cast<double>(usage->threads)});
    samples.push_back({&kProcessStartTime, {}, usage->start_time});
  }
  const DescriptorUsage descriptors = ReadDescriptorUsage();
  samples.push_back({&kProcessOpenFds, {}, static_cast<double>(descriptors.open)});
  samples.push_back({&kProcessMaxFds, {}, static_cast<double>(descriptors.most)});
}

}  // namespace millrace
