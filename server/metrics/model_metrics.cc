// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/model_metrics.h"

#include <algorithm>
#include <utility>

namespace millrace {
namespace {

constexpr double kSecondsPerNanosecond = 1e-9;
constexpr std::array<const char*, kRejections> kRejectionNames = {
    "queue_full",    "deadline", "invalid",    "not_ready",
    "shutting_down", "shed",     "superseded", "too_old"};

constexpr std::array<const char*, kRequestStages> kStageNames = {"admission", "queue", "execution"};
constexpr std::array<const char*, 3> kStateNames = {"ready", "starting", "failed"};

// Shapes and kinds of replicas whose costs are series of their own.
constexpr size_t kMostCosts = 8;

int64_t NonNegativeNs(absl::Duration duration) {
  return std::max<int64_t>(0, absl::ToInt64Nanoseconds(duration));
}

}  // namespace

ModelMetrics::Shard::Shard(size_t batch_sizes)
    : request(kDurationBounds),
      queue(kDurationBounds),
      fill(kDurationBounds),
      execute(kDurationBounds),
      output(kDurationBounds),
      batch_rows(kRowBounds),
      transform_wait(kDurationBounds),
      transform_decode(kDurationBounds),
      transform_resize(kDurationBounds),
      by_size(batch_sizes) {}

ModelMetrics::ModelMetrics(std::string model, std::string version, int64_t max_batch_size,
                           Clock& clock, bool has_transform)
    : model_(std::move(model)),
      version_(std::move(version)),
      max_batch_size_(max_batch_size),
      has_transform_(has_transform),
      clock_(clock),
      created_(clock.Now()),
      shards_(static_cast<size_t>(std::max<int64_t>(1, max_batch_size))) {}

void ModelMetrics::RecordRequest(const RequestRecord& record) {
  Shard& shard = shards_.Local();
  const bool known = record.code >= 0 && record.code < static_cast<int>(kCodes);
  const int code = known ? record.code : static_cast<int>(absl::StatusCode::kUnknown);
  shard.answers[static_cast<size_t>(code)].Add();
  if (code == 0 || record.queue > absl::ZeroDuration()) {
    shard.queue.Observe(NonNegativeNs(record.queue));
  }
  if (record.non_finite) shard.non_finite.Add();
  const auto total = static_cast<uint64_t>(NonNegativeNs(record.total));
  if (code != 0) return shard.fail_ns.Add(total);
  shard.request.Observe(NonNegativeNs(record.total));
  shard.success_ns.Add(total);
  shard.rows.Add(static_cast<uint64_t>(record.rows));
  shard.queue_ns.Add(static_cast<uint64_t>(NonNegativeNs(record.queue)));
  shard.input_ns.Add(static_cast<uint64_t>(NonNegativeNs(record.compute_input)));
  shard.infer_ns.Add(static_cast<uint64_t>(NonNegativeNs(record.compute_infer)));
  shard.output_ns.Add(static_cast<uint64_t>(NonNegativeNs(record.compute_output)));
}

void ModelMetrics::RecordBatch(const BatchRecord& record) {
  Shard& shard = shards_.Local();
  const int64_t fill = NonNegativeNs(record.fill);
  const int64_t execute = NonNegativeNs(record.execute);
  const int64_t output = NonNegativeNs(record.output);
  shard.fill.Observe(fill);
  shard.execute.Observe(execute);
  shard.output.Observe(output);
  shard.batch_rows.Observe(record.rows);

  const int64_t sizes = static_cast<int64_t>(shard.by_size.size());
  BatchSizeShard& size =
      shard.by_size[static_cast<size_t>(std::clamp<int64_t>(record.rows, 1, sizes) - 1)];
  size.batches.Add();
  size.fill_ns.Add(static_cast<uint64_t>(fill));
  size.execute_ns.Add(static_cast<uint64_t>(execute));
  size.output_ns.Add(static_cast<uint64_t>(output));

  const absl::Time now = clock_.Now();
  shard.busy_ns.Add(static_cast<uint64_t>(execute + output));
  shard.busy.Add(now, absl::Nanoseconds(execute + output));
  shard.run.Add(now, static_cast<uint64_t>(std::max<int64_t>(0, record.rows)));
  shard.last_batch_ns.store(absl::ToUnixNanos(now), std::memory_order_relaxed);
}

void ModelMetrics::RecordPreparation(absl::Duration wait, absl::Duration took) {
  Shard& shard = shards_.Local();
  shard.transform_wait.Observe(NonNegativeNs(wait));
  shard.transform_decode.Observe(NonNegativeNs(took));
}

void ModelMetrics::RecordPreparedFill(int64_t rows, absl::Duration took) {
  Histogram& resize = shards_.Local().transform_resize;
  for (int64_t row = 0; row < rows; ++row) resize.Observe(NonNegativeNs(took / rows));
}

void ModelMetrics::RecordRejection(Rejection reason) {
  shards_.Local().rejections[static_cast<size_t>(reason)].Add();
}

void ModelMetrics::RecordArrival(absl::Time when, int64_t rows) {
  Shard& shard = shards_.Local();
  shard.arrived_rows.Add(static_cast<uint64_t>(rows));
  shard.arrived.Add(when, static_cast<uint64_t>(rows));
}

void ModelMetrics::RecordDeadlineExceeded(RequestStage stage) {
  shards_.Local().deadline_exceeded[static_cast<size_t>(stage)].Add();
}

void ModelMetrics::RecordCancelled(RequestStage stage) {
  shards_.Local().cancelled[static_cast<size_t>(stage)].Add();
}

void ModelMetrics::RecordReplicaRestart() { shards_.Local().restarts.Add(); }

uint64_t ModelMetrics::SetGauges(std::function<ModelGauges()> gauges) {
  MutexLock lock(gauges_mutex_);
  gauges_ = std::move(gauges);
  return ++gauges_source_;
}

void ModelMetrics::ClearGauges(uint64_t source) {
  MutexLock lock(gauges_mutex_);
  if (source == gauges_source_) gauges_ = nullptr;
}

ModelStatistics ModelMetrics::Statistics(absl::Time date) const {
  ModelStatistics total;
  int64_t last_batch_ns = 0;
  shards_.ForEach([&](const Shard& shard) {
    total.success.count += shard.answers[0].value();
    for (size_t code = 1; code < kCodes; ++code) total.fail.count += shard.answers[code].value();
    total.success.ns += shard.success_ns.value();
    total.fail.ns += shard.fail_ns.value();
    total.queue.ns += shard.queue_ns.value();
    total.compute_input.ns += shard.input_ns.value();
    total.compute_infer.ns += shard.infer_ns.value();
    total.compute_output.ns += shard.output_ns.value();
    total.inference_count += shard.rows.value();
    last_batch_ns = std::max(last_batch_ns, shard.last_batch_ns.load(std::memory_order_relaxed));
    total.batches.resize(shard.by_size.size());
    for (size_t i = 0; i < total.batches.size(); ++i) {
      const BatchSizeShard& size = shard.by_size[i];
      total.batches[i].rows = i + 1;
      total.batches[i].compute_input.count += size.batches.value();
      total.batches[i].compute_input.ns += size.fill_ns.value();
      total.batches[i].compute_infer.ns += size.execute_ns.value();
      total.batches[i].compute_output.ns += size.output_ns.value();
    }
  });
  for (auto* timing :
       {&total.queue, &total.compute_input, &total.compute_infer, &total.compute_output}) {
    timing->count = total.success.count;
  }
  for (ModelStatistics::BatchSize& size : total.batches) {
    size.compute_infer.count = size.compute_output.count = size.compute_input.count;
    total.execution_count += size.compute_infer.count;
  }
  std::erase_if(total.batches, [](const auto& size) { return size.compute_infer.count == 0; });
  if (total.execution_count > 0) {
    const absl::Duration ago = clock_.Now() - absl::FromUnixNanos(last_batch_ns);
    total.last_inference_ms = absl::ToUnixMillis(date - ago);
  }
  return total;
}

std::optional<ModelGauges> ModelMetrics::Gauges() const {
  // Held during the call, so that ClearGauges() can promise its end.
  MutexLock lock(gauges_mutex_);
  if (!gauges_) return std::nullopt;
  return gauges_();
}

std::vector<Sample> ModelMetrics::Collect() const {
  std::vector<Sample> samples;
  CollectCounters(samples);
  CollectHistograms(samples);
  CollectGauges(samples);
  return samples;
}

void ModelMetrics::CollectCounters(std::vector<Sample>& samples) const {
  for (size_t code = 0; code < kCodes; ++code) {
    const auto status = static_cast<absl::StatusCode>(code);
    samples.push_back({&kRequestsTotal,
                       {model_, version_, absl::StatusCodeToString(status)},
                       static_cast<double>(answers(status))});
  }
  for (size_t i = 0; i < kRejections; ++i) {
    const uint64_t count = shards_.Sum([&](const Shard& s) { return s.rejections[i].value(); });
    samples.push_back(
        {&kRejectionsTotal, {model_, version_, kRejectionNames[i]}, static_cast<double>(count)});
  }
  for (size_t i = 0; i < kRequestStages; ++i) {
    const std::vector<std::string> labels = {model_, version_, kStageNames[i]};
    const uint64_t late =
        shards_.Sum([&](const Shard& s) { return s.deadline_exceeded[i].value(); });
    const uint64_t cancelled = shards_.Sum([&](const Shard& s) { return s.cancelled[i].value(); });
    samples.push_back({&kDeadlineExceededTotal, labels, static_cast<double>(late)});
    samples.push_back({&kCancelledTotal, labels, static_cast<double>(cancelled)});
  }
  const uint64_t arrived = shards_.Sum([](const Shard& s) { return s.arrived_rows.value(); });
  samples.push_back({&kArrivedRowsTotal, {model_, version_}, static_cast<double>(arrived)});
  const uint64_t non_finite = shards_.Sum([](const Shard& s) { return s.non_finite.value(); });
  samples.push_back({&kNonFiniteTotal, {model_, version_}, static_cast<double>(non_finite)});
  const uint64_t restarts = shards_.Sum([](const Shard& s) { return s.restarts.value(); });
  samples.push_back({&kReplicaRestartsTotal, {model_, version_}, static_cast<double>(restarts)});
  const uint64_t busy_ns = shards_.Sum([](const Shard& s) { return s.busy_ns.value(); });
  samples.push_back({&kReplicaBusyTotal,
                     {model_, version_},
                     static_cast<double>(busy_ns) * kSecondsPerNanosecond});
}

void ModelMetrics::CollectHistograms(std::vector<Sample>& samples) const {
  const auto collect = [&](const Metric& metric, const Histogram Shard::*histogram, double unit) {
    HistogramValue total;
    shards_.ForEach([&](const Shard& shard) { (shard.*histogram).AddTo(total, unit); });
    samples.push_back({&metric, {model_, version_}, std::move(total)});
  };
  collect(kRequestDuration, &Shard::request, kSecondsPerNanosecond);
  collect(kQueueWait, &Shard::queue, kSecondsPerNanosecond);
  collect(kFill, &Shard::fill, kSecondsPerNanosecond);
  collect(kExecute, &Shard::execute, kSecondsPerNanosecond);
  collect(kOutput, &Shard::output, kSecondsPerNanosecond);
  collect(kBatchRows, &Shard::batch_rows, 1);
  if (!has_transform_) return;
  collect(kTransformWait, &Shard::transform_wait, kSecondsPerNanosecond);
  collect(kTransformDecode, &Shard::transform_decode, kSecondsPerNanosecond);
  collect(kTransformResize, &Shard::transform_resize, kSecondsPerNanosecond);
}

void ModelMetrics::CollectGauges(std::vector<Sample>& samples) const {
  const std::optional<ModelGauges> told = Gauges();
  if (!told) return;
  const ModelGauges& gauges = *told;
  const auto add = [&](const Metric& metric, double value) {
    samples.push_back({&metric, {model_, version_}, value});
  };
  add(kSaturation, Saturation(gauges));
  add(kDesiredReplicas, DesiredReplicas(gauges));
  add(kReadyReplicas, gauges.ready_replicas);
  add(kBusyReplicas, static_cast<double>(gauges.busy_for.size()));
  add(kQueueDepth, static_cast<double>(gauges.queue_depth));
  add(kQueueLimit, static_cast<double>(gauges.queue_limit));
  add(kQueueOldestAge, absl::ToDoubleSeconds(gauges.oldest_queued_age));
  add(kInFlight, static_cast<double>(gauges.in_flight));
  add(kParked, static_cast<double>(gauges.parked));
  add(kHeldBytes, static_cast<double>(gauges.held_bytes));
  add(kHeldBytesLimit, static_cast<double>(gauges.held_bytes_limit));
  add(kPredictedWait, absl::ToDoubleSeconds(gauges.predicted_wait));
  add(kCapacity, gauges.capacity);
  add(kOverloaded, gauges.overloaded ? 1 : 0);
  add(kBatchLimit, static_cast<double>(gauges.batch_limit));
  const int64_t load_ns = load_ns_.load(std::memory_order_relaxed);
  add(kModelLoad, static_cast<double>(load_ns) * kSecondsPerNanosecond);
  for (const ModelGauges::Replica& replica : gauges.replicas) {
    for (size_t state = 0; state < kStateNames.size(); ++state) {
      samples.push_back(
          {&kReplicaState,
           {model_, version_, std::to_string(replica.index), replica.device, kStateNames[state]},
           static_cast<size_t>(replica.state) == state ? 1.0 : 0.0});
    }
  }
  for (size_t i = 0; i < gauges.costs.size() && i < kMostCosts; ++i) {
    const ModelGauges::Cost& cost = gauges.costs[i];
    const std::vector<std::string> labels = {model_, version_, cost.shape, cost.replica_kind};
    samples.push_back({&kBatchSetup, labels, absl::ToDoubleSeconds(cost.setup)});
    samples.push_back({&kBatchRowCost, labels, absl::ToDoubleSeconds(cost.per_row)});
    samples.push_back({&kBatchDeviation, labels, absl::ToDoubleSeconds(cost.deviation)});
  }
}

// What came in the window is the demand, also where most of it was refused. Where clients are held
// back instead, as streams are, they send as much as is served, and the rest waits.
double ModelMetrics::DesiredReplicas(const ModelGauges& gauges) const {
  if (gauges.ready_replicas <= 0 || gauges.capacity <= 0) return gauges.waiting_rows > 0 ? 1 : 0;
  const absl::Time now = clock_.Now();
  const absl::Duration window =
      std::max(absl::Seconds(1), now - std::max(created_, RecentSum::Begin(now)));
  const uint64_t arrived = shards_.Sum([&](const Shard& s) { return s.arrived.Sum(now); });
  const uint64_t run = shards_.Sum([&](const Shard& s) { return s.run.Sum(now); });
  const double demand =
      std::max(static_cast<double>(arrived),
               static_cast<double>(run) + static_cast<double>(gauges.waiting_rows));
  return demand / (gauges.capacity * absl::ToDoubleSeconds(window));
}

double ModelMetrics::Saturation(const ModelGauges& gauges) const {
  if (gauges.ready_replicas <= 0) return gauges.queue_depth > 0 ? 1 : 0;
  const absl::Time now = clock_.Now();
  const absl::Duration window = now - std::max(created_, BusyWindow::Begin(now));
  if (window <= absl::ZeroDuration()) return 0;
  absl::Duration busy;
  shards_.ForEach([&](const Shard& shard) { busy += shard.busy.Sum(now); });
  for (const absl::Duration running : gauges.busy_for) busy += std::min(running, window);
  return std::min(1.0, absl::FDivDuration(busy, window * gauges.ready_replicas));
}

}  // namespace millrace
