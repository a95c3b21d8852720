// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metrics_registry.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <iterator>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "absl/types/span.h"
#include "server/base/check.h"
#include "server/metrics/triton_metrics.h"

namespace millrace {
namespace {

prometheus::MetricType TypeOf(const Metric& metric) {
  switch (metric.type) {
    case MetricType::kCounter:
      return prometheus::MetricType::Counter;
    case MetricType::kGauge:
      return prometheus::MetricType::Gauge;
    case MetricType::kHistogram:
      return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

prometheus::ClientMetric::Histogram ToPrometheus(const HistogramValue& value) {
  prometheus::ClientMetric::Histogram histogram;
  for (size_t i = 0; i < value.counts.size(); ++i) {
    histogram.sample_count += value.counts[i];
    if (i < value.bounds.size()) {
      histogram.bucket.push_back({histogram.sample_count, value.bounds[i]});
    }
  }
  histogram.sample_sum = value.sum;
  return histogram;
}

prometheus::ClientMetric ToPrometheus(const Sample& sample) {
  const Metric& metric = *sample.metric;
  prometheus::ClientMetric series;
  for (size_t i = 0; i < sample.labels.size(); ++i) {
    MILLRACE_CHECK(i < metric.labels.size() && metric.labels[i] != nullptr,
                   "a sample has more label values than its metric has labels");
    series.label.push_back({metric.labels[i], sample.labels[i]});
  }
  if (metric.type == MetricType::kHistogram) {
    series.histogram = ToPrometheus(std::get<HistogramValue>(sample.value));
  } else if (metric.type == MetricType::kCounter) {
    series.counter.value = std::get<double>(sample.value);
  } else {
    series.gauge.value = std::get<double>(sample.value);
  }
  return series;
}

// Writes the families of `metrics`, one after the other, so that one alone is in prometheus-cpp's
// form at a time.
void Write(absl::Span<const Metric* const> metrics,
           const std::unordered_map<const Metric*, std::vector<const Sample*>>& by_metric,
           std::ostream& text) {
  const prometheus::TextSerializer serializer;
  for (const Metric* metric : metrics) {
    const auto samples = by_metric.find(metric);
    if (samples == by_metric.end()) continue;
    std::vector<prometheus::MetricFamily> family = {
        {metric->name, metric->help, TypeOf(*metric), {}}};
    for (const Sample* sample : samples->second) {
      family.front().metric.push_back(ToPrometheus(*sample));
    }
    serializer.Serialize(text, family);
  }
}

}  // namespace

void MetricsRegistry::ShowTritonNames() {
  MutexLock lock(mutex_);
  triton_ = true;
}

void MetricsRegistry::AddSource(Source source) {
  MutexLock lock(mutex_);
  sources_.push_back(std::move(source));
}

void MetricsRegistry::AddModel(const std::shared_ptr<const ModelMetrics>& model) {
  MutexLock lock(mutex_);
  std::erase_if(models_, [](const auto& entry) { return entry.second.expired(); });
  models_[{model->model(), model->version()}] = model;
}

std::vector<std::shared_ptr<const ModelMetrics>> MetricsRegistry::Models() const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<const ModelMetrics>> models;
  for (const auto& [name, shown] : models_) {
    if (auto model = shown.lock()) models.push_back(std::move(model));
  }
  return models;
}

std::vector<Sample> MetricsRegistry::Collect() const {
  const std::vector<std::shared_ptr<const ModelMetrics>> models = Models();
  std::vector<Source> sources;
  bool triton;
  {
    MutexLock lock(mutex_);
    triton = triton_;
    sources = sources_;
  }
  std::vector<Sample> samples;
  const auto append = [&](std::vector<Sample> more) {
    samples.insert(samples.end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
  };
  for (const auto& model : models) append(model->Collect());
  for (const Source& source : sources) append(source());
  if (!triton) return samples;
  append(CollectTritonGpus(samples));
  for (const auto& model : models) append(CollectTritonModel(*model));
  return samples;
}

std::string MetricsRegistry::Render() const {
  MutexLock lock(rendering_);
  const std::vector<Sample> samples = Collect();
  std::unordered_map<const Metric*, std::vector<const Sample*>> by_metric;
  for (const Sample& sample : samples) by_metric[sample.metric].push_back(&sample);
  std::ostringstream text;
  Write(kAllMetrics, by_metric, text);
  Write(kTritonMetrics, by_metric, text);
  return std::move(text).str();
}

}  // namespace millrace
