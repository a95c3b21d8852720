// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/open_loop.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "server/measuring/median.h"

namespace millrace {
namespace {

constexpr int kRequests = 4000;
constexpr int kUncounted = 400;  // The first ones find no queue yet.
constexpr int kBisections = 14;

}  // namespace

absl::Duration PredictP99(const Service& service, double rate) {
  if (rate >= service.replicas * service.cost.Capacity(service.most_rows)) {
    return absl::InfiniteDuration();
  }
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(rate);
  std::normal_distribution<double> noise(
      0, std::max(1e-12, absl::ToDoubleSeconds(service.cost.deviation())));
  std::vector<double> arrivals(kRequests);
  double now = 0;
  for (double& arrival : arrivals) arrival = now += gap(random);

  std::vector<double> free_at(static_cast<size_t>(service.replicas), 0);
  std::vector<double> latencies;
  for (size_t next = 0; next < arrivals.size();) {
    const auto replica = std::min_element(free_at.begin(), free_at.end());
    const double start = std::max(*replica, arrivals[next]);
    size_t end = next;
    while (end < arrivals.size() && arrivals[end] <= start &&
           end - next < static_cast<size_t>(service.most_rows)) {
      ++end;
    }
    const double predicted = service.cost.PredictNs(static_cast<int64_t>(end - next)) / 1e9;
    *replica = start + std::max(predicted / 2, predicted + noise(random));
    for (; next < end; ++next) {
      if (next >= kUncounted) latencies.push_back(*replica - arrivals[next]);
    }
  }
  return absl::Seconds(Percentile99(std::move(latencies)));
}

double MostRequestsPerSecond(const Service& service, absl::Duration limit) {
  if (service.cost.Predict(1) > limit) return 0;
  double low = 0;
  double high = service.replicas * service.cost.Capacity(service.most_rows);
  for (int i = 0; i < kBisections; ++i) {
    const double rate = (low + high) / 2;
    (PredictP99(service, rate) <= limit ? low : high) = rate;
  }
  return low;
}

}  // namespace millrace
