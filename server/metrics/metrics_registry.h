// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/metrics/model_metrics.h"
#include "server/metrics/sample.h"

namespace millrace {

// Everything that a scrape shows. Thread-safe.
class MetricsRegistry {
 public:
  // Gives samples of other folders' figures, or the server's own. Called at every scrape, maybe by
  // several at once; must stay callable as long as the registry lives.
  using Source = std::function<std::vector<Sample>()>;

  // Shows models and GPUs by Triton's names, too.
  void ShowTritonNames() ABSL_LOCKS_EXCLUDED(mutex_);

  // Shows what `source` gives.
  void AddSource(Source source) ABSL_LOCKS_EXCLUDED(mutex_);

  // Shows a model version for as long as somebody else holds it. It takes the place of one with
  // the same model and version.
  void AddModel(const std::shared_ptr<const ModelMetrics>& model) ABSL_LOCKS_EXCLUDED(mutex_);

  // The model versions that are shown.
  std::vector<std::shared_ptr<const ModelMetrics>> Models() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The text exposition, format 0.0.4. One at a time is made: others wait, so that scrapes can't
  // take more memory or cores than one does.
  std::string Render() const ABSL_LOCKS_EXCLUDED(rendering_, mutex_);

 private:
  std::vector<Sample> Collect() const ABSL_LOCKS_EXCLUDED(mutex_);

  mutable Mutex rendering_;
  mutable Mutex mutex_;
  bool triton_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Source> sources_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::string>, std::weak_ptr<const ModelMetrics>> models_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
