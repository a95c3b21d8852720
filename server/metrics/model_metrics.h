// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/metrics/busy_window.h"
#include "server/metrics/histogram.h"
#include "server/metrics/model_statistics.h"
#include "server/metrics/recent_sum.h"
#include "server/metrics/sample.h"
#include "server/metrics/sharded.h"

namespace millrace {

// Why a request was refused before it ran.
enum class Rejection {
  kQueueFull,     // The queue holds its limit of rows.
  kDeadline,      // Its deadline passed, or couldn't be met.
  kInvalid,       // It doesn't fit the model's signature.
  kNotReady,      // The model has no replica that could run it.
  kShuttingDown,  // The server or the model is draining.
  kShed,          // The model is overloaded, and it waited too long.
  kSuperseded,    // A newer one took its place.
  kTooOld,        // It waited longer than its stream allows.
};
inline constexpr size_t kRejections = 8;

// How far a request had come.
enum class RequestStage {
  kAdmission,  // It was not let in.
  kQueue,      // It waited.
  kExecution,  // It ran.
};
inline constexpr size_t kRequestStages = 3;

// A request that has its answer.
struct RequestRecord {
  int code = 0;  // absl::StatusCode as int; 0 is OK.
  int64_t rows = 1;
  absl::Duration total;           // From reading it to having its answer.
  absl::Duration queue;           // Until a replica took its batch, or it failed; 0: never queued.
  absl::Duration compute_input;   // Copying it into its batch.
  absl::Duration compute_infer;   // Running its batch.
  absl::Duration compute_output;  // Copying its outputs out.
  bool non_finite = false;        // Its outputs had values that are NaN or infinite.
};

// A batch that has run.
struct BatchRecord {
  int64_t rows = 0;
  int64_t requests = 0;
  absl::Duration fill;     // Copying its requests into its buffer, summed over requests.
  absl::Duration execute;  // From handing it to the worker to the worker's word that it is done.
  absl::Duration output;   // Copying its outputs out.
};

// What only the model's owner knows, at the moment of a scrape.
struct ModelGauges {
  int64_t queue_depth = 0;  // Rows.
  int64_t queue_limit = 0;  // Rows.
  absl::Duration oldest_queued_age;
  int64_t in_flight = 0;  // Requests.
  int ready_replicas = 0;
  // One entry per replica that runs a batch: how long it has been running it.
  std::vector<absl::Duration> busy_for;
  int64_t parked = 0;      // Requests.
  int64_t held_bytes = 0;  // Of payloads.
  int64_t held_bytes_limit = 0;
  absl::Duration predicted_wait;
  double capacity = 0;     // Rows per second.
  double utilisation = 0;  // Of the replicas; the last second counts most.
  bool overloaded = false;
  int64_t waiting_requests = 0;  // That no replica has taken.
  int64_t waiting_rows = 0;      // In the queue, in batches that no replica has, at the door.
  int64_t batch_limit = 0;       // Rows.

  struct Replica {
    enum class State { kReady, kStarting, kFailed };
    int index = 0;
    std::string device;
    State state = State::kStarting;
  };
  std::vector<Replica> replicas;
  std::vector<pid_t> pids;  // Of its worker processes.

  // What batches of one shape cost on one kind of replica.
  struct Cost {
    std::string shape;
    const char* replica_kind = "";
    absl::Duration setup;
    absl::Duration per_row;
    absl::Duration deviation;
  };
  std::vector<Cost> costs;  // The shape that ran last first.
};

// What one model version has done since it was loaded; where it is swapped for a newer load of
// itself, both record here. Thread-safe.
//
// Invariants:
//  1. The Record… methods take no lock, allocate nothing, and write only to the calling thread's
//     shard.
//  2. A record that happened before a scrape is in it, exactly once.
class ModelMetrics {
 public:
  // `max_batch_size` as in the model's configuration: 0 and 1 mean no batching. `clock` must
  // outlive this. Only a model with a transform shows how long its inputs' preparation takes.
  ModelMetrics(std::string model, std::string version, int64_t max_batch_size, Clock& clock,
               bool has_transform = false);

  // Counts a request that has its answer, also one that was rejected.
  void RecordRequest(const RequestRecord& record);

  // Counts a batch that has run just now. Its rows count as max_batch_size where there are more.
  void RecordBatch(const BatchRecord& record);

  // Counts a row whose input was prepared before it could join a batch.
  void RecordPreparation(absl::Duration wait, absl::Duration took);

  // Counts such rows that were written into a batch, `took` being the time for all of them.
  void RecordPreparedFill(int64_t rows, absl::Duration took);

  // Counts why a request was refused; its answer is counted by RecordRequest.
  void RecordRejection(Rejection reason);

  // Counts a request that asks for a place in the queue, whatever becomes of it.
  void RecordArrival(absl::Time when, int64_t rows);

  // Counts a request that missed its deadline, or was cancelled.
  void RecordDeadlineExceeded(RequestStage stage);
  void RecordCancelled(RequestStage stage);

  // Says how long the model took to load.
  void SetLoadDuration(absl::Duration took) {
    load_ns_.store(absl::ToInt64Nanoseconds(took), std::memory_order_relaxed);
  }

  // Counts a replica that died and is being replaced.
  void RecordReplicaRestart();

  // Tells where the gauges come from, instead of whoever told them before; returns the source's
  // number. Scrapes call `gauges` from their threads, one at a time; it must not call back into
  // this object.
  uint64_t SetGauges(std::function<ModelGauges()> gauges) ABSL_LOCKS_EXCLUDED(gauges_mutex_);

  // Forgets the source of that number, unless another has taken its place, and waits for a scrape
  // that is just asking it: after the return it isn't called again. Scrapes then leave the gauges
  // out.
  void ClearGauges(uint64_t source) ABSL_LOCKS_EXCLUDED(gauges_mutex_);

  // What only the model's owner knows, now; nullopt where nobody tells.
  std::optional<ModelGauges> Gauges() const ABSL_LOCKS_EXCLUDED(gauges_mutex_);

  // Busy time of the replicas over their time, from 0 to 1, and demand over capacity, of the last
  // 15 seconds, where `gauges` are those of now.
  double Saturation(const ModelGauges& gauges) const;
  double DesiredReplicas(const ModelGauges& gauges) const;

  // The figures of KServe's ModelStatistics. `date` is the wall clock's time, from which that of
  // the last inference is told.
  ModelStatistics Statistics(absl::Time date) const;

  // How many requests were answered with `code`.
  uint64_t answers(absl::StatusCode code) const {
    return shards_.Sum(
        [&](const Shard& s) { return s.answers[static_cast<size_t>(code)].value(); });
  }

  // Every series of this model version, for a scrape.
  std::vector<Sample> Collect() const ABSL_LOCKS_EXCLUDED(gauges_mutex_);

  const std::string& model() const { return model_; }
  const std::string& version() const { return version_; }
  int64_t max_batch_size() const { return max_batch_size_; }
  bool has_transform() const { return has_transform_; }

 private:
  static constexpr size_t kCodes = 17;  // absl::StatusCode: 0 to 16.

  struct BatchSizeShard {
    Counter batches, fill_ns, execute_ns, output_ns;
  };

  // What one thread has recorded.
  struct Shard {
    explicit Shard(size_t batch_sizes);

    std::array<Counter, kCodes> answers;
    std::array<Counter, kRejections> rejections;
    std::array<Counter, kRequestStages> deadline_exceeded, cancelled;
    Counter restarts;
    Counter non_finite;
    Counter rows, success_ns, fail_ns, queue_ns, input_ns, infer_ns, output_ns;  // By requests.
    Histogram request, queue, fill, execute, output, batch_rows;
    Histogram transform_wait, transform_decode, transform_resize;
    Counter busy_ns;
    BusyWindow busy;
    Counter arrived_rows;
    RecentSum arrived, run;                 // Rows.
    std::atomic<int64_t> last_batch_ns{0};  // The clock's time since its origin; 0: none yet.
    std::vector<BatchSizeShard> by_size;    // [rows - 1]
  };

  void CollectCounters(std::vector<Sample>& samples) const;
  void CollectHistograms(std::vector<Sample>& samples) const;
  void CollectGauges(std::vector<Sample>& samples) const ABSL_LOCKS_EXCLUDED(gauges_mutex_);

  const std::string model_;
  const std::string version_;
  const int64_t max_batch_size_;
  const bool has_transform_;
  Clock& clock_;
  const absl::Time created_;
  Sharded<Shard> shards_;
  std::atomic<int64_t> load_ns_{0};

  mutable Mutex gauges_mutex_;
  std::function<ModelGauges()> gauges_ ABSL_GUARDED_BY(gauges_mutex_);
  uint64_t gauges_source_ ABSL_GUARDED_BY(gauges_mutex_) = 0;
};

}  // namespace millrace
