// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "absl/time/time.h"
#include "server/dispatch/core_leases.h"
#include "server/dispatch/dispatcher.h"
#include "server/metrics/model_metrics.h"
#include "tests/simulation/batch_time.h"
#include "tests/simulation/event_loop.h"

namespace millrace {

using Random = std::mt19937_64;

// A model in virtual time: the server's own dispatcher, with replicas that take their time and
// rows that hold no data. Confined to the loop's thread.
class SimulatedModel {
 public:
  struct Options {
    Dispatcher::Options dispatch = {};
    int64_t max_batch_size = 32;
    int replicas = 1;
    std::vector<BatchTime> shapes = {BatchTime{}};  // One per row shape that requests may have.
    double noise = 0;  // Standard deviation of the logarithm of a factor on each batch's time.

    // Rows per second where all batches are full and of the first shape.
    double Capacity() const { return replicas * shapes[0].Capacity(max_batch_size); }
  };

  // The loop outlives the model. Everything random follows from `seed`.
  SimulatedModel(Options options, EventLoop& loop, uint64_t seed);
  ~SimulatedModel();

  // A request of `rows` rows of a shape, that arrives now.
  std::shared_ptr<PendingRequest> MakeRequest(int shape, int64_t rows, Responder responder,
                                              std::shared_ptr<const Caller> caller) const;

  Dispatcher& dispatcher() { return *dispatcher_; }
  const Options& options() const { return options_; }
  // Nothing waits or runs, and no buffer is missing.
  bool Quiet() const;

  // Rows and batches that have run.
  int64_t rows_run() const { return rows_run_; }
  int64_t batches_run() const { return batches_run_; }

 private:
  class Buffer;
  class Replica;

  absl::Duration Execution(int shape, int64_t rows);

  const Options options_;
  EventLoop& loop_;
  Random random_;
  const std::shared_ptr<const ModelSignature> signature_;
  ModelMetrics metrics_;
  CoreLeases leases_;
  std::vector<std::shared_ptr<const RowShape>> shapes_;
  std::vector<std::unique_ptr<BatchBuffer>> buffers_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  std::shared_ptr<Dispatcher> dispatcher_;
  int64_t rows_run_ = 0;
  int64_t batches_run_ = 0;
};

}  // namespace millrace
