// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/base/mutex.h"
#include "server/metrics/histogram.h"
#include "server/metrics/sample.h"
#include "server/metrics/sharded.h"

namespace millrace {

// What the streams of one name did. Thread-safe; takes no lock and allocates nothing.
class StreamCounts {
 public:
  // Outputs are sent, `age` after their request was read.
  void Served(absl::Duration age) {
    Shard& shard = shards_.Local();
    shard.answers.Add();
    shard.age.Observe(absl::ToInt64Nanoseconds(age));
  }
  // An error is sent: the request was given up before it ran, or it failed.
  void Dropped() {
    Shard& shard = shards_.Local();
    shard.answers.Add();
    shard.drops.Add();
  }
  void Failed() { shards_.Local().answers.Add(); }

 private:
  friend class StreamMetrics;

  struct Shard {
    Counter answers, drops;
    Histogram age{kAgeBounds};
  };

  Sharded<Shard> shards_;
};

// What streams did, by the names that they give themselves. There are at most so many names; a
// stream of another is counted as "other", unless a name has no stream any more, whose place the
// new one then takes. Thread-safe: streams record without a lock.
class StreamMetrics {
 public:
  explicit StreamMetrics(size_t most_names) : most_names_(most_names) {}

  // Where a stream of that name counts for as long as it lives; "" for one without a name.
  std::shared_ptr<StreamCounts> Open(absl::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);

  // Every series, for a scrape.
  std::vector<Sample> Collect() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const size_t most_names_;
  const std::shared_ptr<StreamCounts> unnamed_ = std::make_shared<StreamCounts>();
  const std::shared_ptr<StreamCounts> other_ = std::make_shared<StreamCounts>();
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<StreamCounts>, std::less<>> names_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
