// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/triton_metrics.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace millrace {
namespace {

double Microseconds(const ModelStatistics::Timing& timing) {
  return static_cast<double>(timing.ns / 1000);
}

// Triton's words for why requests failed.
constexpr std::array<const char*, 4> kReasons = {"REJECTED", "CANCELED", "BACKEND", "OTHER"};

size_t ReasonOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kUnavailable:
      return 0;
    case absl::StatusCode::kCancelled:
      return 1;
    case absl::StatusCode::kInternal:
      return 2;
    default:
      return 3;
  }
}

}  // namespace

std::vector<Sample> CollectTritonModel(const ModelMetrics& model) {
  const std::vector<std::string> labels = {model.model(), model.version()};
  const ModelStatistics statistics = model.Statistics(absl::UnixEpoch());
  std::vector<Sample> samples;
  const auto add = [&](const Metric& metric, double value) {
    samples.push_back({&metric, labels, value});
  };
  add(kTritonSuccess, static_cast<double>(statistics.success.count));
  std::array<uint64_t, kReasons.size()> failures = {};
  for (int code = 1; code <= 16; ++code) {
    const auto status = static_cast<absl::StatusCode>(code);
    failures[ReasonOf(status)] += model.answers(status);
  }
  for (size_t i = 0; i < kReasons.size(); ++i) {
    samples.push_back(
        {&kTritonFailure, {labels[0], labels[1], kReasons[i]}, static_cast<double>(failures[i])});
  }
  add(kTritonCount, static_cast<double>(statistics.inference_count));
  add(kTritonExecCount, static_cast<double>(statistics.execution_count));
  add(kTritonRequestUs, Microseconds(statistics.success));
  add(kTritonQueueUs, Microseconds(statistics.queue));
  add(kTritonInputUs, Microseconds(statistics.compute_input));
  add(kTritonInferUs, Microseconds(statistics.compute_infer));
  add(kTritonOutputUs, Microseconds(statistics.compute_output));
  if (const auto gauges = model.Gauges()) {
    add(kTritonPending, static_cast<double>(gauges->waiting_requests));
  }
  return samples;
}

std::vector<Sample> CollectTritonGpus(const std::vector<Sample>& samples) {
  static constexpr std::pair<const Metric*, const Metric*> kNames[] = {
      {&kGpuUtilisation, &kTritonGpuUtilisation},
      {&kGpuMemoryTotal, &kTritonGpuMemoryTotal},
      {&kGpuMemoryUsed, &kTritonGpuMemoryUsed},
      {&kGpuPower, &kTritonGpuPower},
  };
  std::vector<Sample> renamed;
  for (const Sample& sample : samples) {
    for (const auto& [ours, theirs] : kNames) {
      if (sample.metric != ours) continue;
      renamed.push_back({theirs, {sample.labels.back()}, sample.value});
    }
  }
  return renamed;
}

}  // namespace millrace
