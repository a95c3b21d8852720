// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metrics_registry.h"

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <iterator>
#include <sstream>
#include <utility>

#include "server/base/check.h"

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

// What prometheus-cpp is given: the samples of one scrape, by family.
class Scrape final : public prometheus::Collectable {
 public:
  explicit Scrape(const std::vector<Sample>& samples) {
    for (const Metric* metric : kAllMetrics) {
      prometheus::MetricFamily family{metric->name, metric->help, TypeOf(*metric), {}};
      for (const Sample& sample : samples) {
        if (sample.metric == metric) family.metric.push_back(ToPrometheus(sample));
      }
      if (!family.metric.empty()) families_.push_back(std::move(family));
    }
  }

  std::vector<prometheus::MetricFamily> Collect() const override { return families_; }

 private:
  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace

void MetricsRegistry::AddSource(Source source) {
  MutexLock lock(mutex_);
  sources_.push_back(std::move(source));
}

void MetricsRegistry::AddModel(const std::shared_ptr<const ModelMetrics>& model) {
  MutexLock lock(mutex_);
  std::erase_if(models_, [](const auto& entry) { return entry.second.expired(); });
  models_[{model->model(), model->version()}] = model;
}

std::vector<Sample> MetricsRegistry::Collect() const {
  std::vector<Source> sources;
  std::vector<std::shared_ptr<const ModelMetrics>> models;
  {
    MutexLock lock(mutex_);
    sources = sources_;
    for (const auto& [name, model] : models_) models.push_back(model.lock());
  }
  std::vector<Sample> samples;
  const auto append = [&](std::vector<Sample> more) {
    samples.insert(samples.end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
  };
  for (const auto& model : models) {
    if (model != nullptr) append(model->Collect());
  }
  for (const Source& source : sources) append(source());
  return samples;
}

std::string MetricsRegistry::Render() const {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, Scrape(Collect()).Collect());
  return text.str();
}

}  // namespace millrace
