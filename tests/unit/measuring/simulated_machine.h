// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "server/measuring/measurer.h"
#include "tests/fakes/virtual_clock.h"

namespace millrace {

// A machine in virtual time on which a model runs as fast as a formula says, but for noise: runs
// differ by a few per cent, the machine becomes slower and faster by a fifth within a minute, and
// every tenth run is disturbed by others.
class SimulatedMachine final : public Measurer {
 public:
  struct Noise {
    double run = 0.04;         // Standard deviation of a run's logarithm.
    double drift = 0.2;        // How much the machine's speed changes,
    double period = 60;        // and in how many seconds.
    double disturbed = 0.1;    // How many runs are,
    double disturbance = 0.5;  // and how much slower they are at most.
  };
  // How long a batch of so many rows takes while all replicas are busy; 0: it can't be run.
  using BatchTime = std::function<double(const Candidate&, int64_t rows)>;

  SimulatedMachine(uint64_t seed, Noise noise, int64_t max_batch_size, BatchTime batch_time)
      : random_(seed),
        noise_(noise),
        max_batch_size_(max_batch_size),
        batch_time_(std::move(batch_time)) {}

  VirtualClock& clock() { return clock_; }
  int runs() const { return runs_; }
  const std::vector<Candidate>& kept() const { return kept_; }

  // What a run would find without noise.
  double TrueRate(const Candidate& candidate) const {
    const int64_t rows = RowsOf(candidate);
    return candidate.replicas * static_cast<double>(rows) / batch_time_(candidate, rows);
  }

  // A number as it is measured on a machine that is like this now.
  double Disturb(double value, absl::Duration length) {
    const double now = absl::ToDoubleSeconds(clock_.Now() - absl::UnixEpoch());
    double noise = noise_.run * std::normal_distribution<double>()(random_);
    // Longer runs are less noisy, but never quiet.
    noise *= std::sqrt(std::clamp(0.1 / absl::ToDoubleSeconds(length), 0.1, 4.0));
    std::uniform_real_distribution<double> part;
    if (part(random_) < noise_.disturbed) noise -= noise_.disturbance * part(random_);
    noise += noise_.drift * std::sin(2 * 3.14159265 * now / noise_.period);
    return value * std::exp(noise);
  }

  absl::StatusOr<Trial> Run(const Candidate& candidate, const Load& load,
                            absl::Duration length) override {
    ++runs_;
    const int64_t rows = load.kind == Load::Kind::kFullBatches ? RowsOf(candidate) : 1;
    const double batch = batch_time_(candidate, rows);
    if (batch <= 0) return absl::InternalError("it can't be run so");
    const double speed = Disturb(1, length);
    clock_.Advance(length + absl::Milliseconds(15));
    Trial trial;
    trial.rows_per_second = load.kind == Load::Kind::kAtRandom
                                ? load.rate
                                : speed * candidate.replicas * static_cast<double>(rows) / batch;
    trial.p50 = trial.p99 = absl::Seconds(batch / speed);
    if (load.kind == Load::Kind::kAtRandom) trial.p99 = p99_at_random_(load.rate);
    return trial;
  }

  void Keep(absl::Span<const Candidate> candidates, absl::Time) override {
    kept_.assign(candidates.begin(), candidates.end());
  }

  // The p99 under a load at random.
  std::function<absl::Duration(double rate)> p99_at_random_ = [](double) {
    return absl::ZeroDuration();
  };

 private:
  int64_t RowsOf(const Candidate& candidate) const {
    return std::max<int64_t>(1, candidate.most_rows > 0 ? candidate.most_rows : max_batch_size_);
  }

  std::mt19937_64 random_;
  const Noise noise_;
  const int64_t max_batch_size_;
  const BatchTime batch_time_;
  VirtualClock clock_;
  int runs_ = 0;
  std::vector<Candidate> kept_;
};

}  // namespace millrace
