// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/model_metrics.h"

#include <gmock/gmock.h>

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "server/base/thread.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

constexpr int kThreads = 4;
constexpr int kEach = 2'000;

// Runs `body` on kThreads threads and waits for them.
void OnThreads(const std::function<void()>& body) {
  std::vector<std::unique_ptr<Thread>> threads;
  for (int i = 0; i < kThreads; ++i) threads.push_back(std::make_unique<Thread>("record", body));
}

const Sample* Find(const std::vector<Sample>& samples, const Metric& metric,
                   const std::string& last_label = "") {
  for (const Sample& sample : samples) {
    if (sample.metric == &metric && (last_label.empty() || sample.labels.back() == last_label)) {
      return &sample;
    }
  }
  return nullptr;
}

double Value(const ModelMetrics& metrics, const Metric& metric,
             const std::string& last_label = "") {
  const std::vector<Sample> samples = metrics.Collect();
  const Sample* sample = Find(samples, metric, last_label);
  return sample != nullptr ? std::get<double>(sample->value) : -1;
}

HistogramValue Distribution(const ModelMetrics& metrics, const Metric& metric) {
  const std::vector<Sample> samples = metrics.Collect();
  return std::get<HistogramValue>(Find(samples, metric)->value);
}

uint64_t Count(const HistogramValue& value) {
  uint64_t count = 0;
  for (const uint64_t bucket : value.counts) count += bucket;
  return count;
}

RequestRecord Success() {
  RequestRecord record;
  record.rows = 2;
  record.total = absl::Microseconds(400);
  record.queue = absl::Microseconds(100);
  record.compute_input = absl::Microseconds(10);
  record.compute_infer = absl::Microseconds(200);
  record.compute_output = absl::Microseconds(20);
  return record;
}

RequestRecord Failure(absl::StatusCode code) {
  RequestRecord record;
  record.code = static_cast<int>(code);
  record.total = absl::Microseconds(50);
  return record;
}

BatchRecord Batch(int64_t rows, absl::Duration execute) {
  BatchRecord record;
  record.rows = rows;
  record.requests = rows;
  record.fill = absl::Microseconds(10);
  record.execute = execute;
  return record;
}

class ModelMetricsTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  ModelMetrics metrics_{"resnet", "3", 8, clock_, /*has_transform=*/true};
};

TEST_F(ModelMetricsTest, EveryRecordOfFourThreadsIsCountedOnce) {
  OnThreads([this] {
    for (int i = 0; i < kEach; ++i) {
      metrics_.RecordRequest(Success());
      metrics_.RecordRequest(Failure(absl::StatusCode::kResourceExhausted));
      metrics_.RecordBatch(Batch(4, absl::Microseconds(200)));
      metrics_.RecordRejection(Rejection::kQueueFull);
      metrics_.RecordReplicaRestart();
    }
  });
  const int all = kThreads * kEach;
  EXPECT_EQ(Value(metrics_, kRequestsTotal, "OK"), all);
  EXPECT_EQ(Value(metrics_, kRequestsTotal, "RESOURCE_EXHAUSTED"), all);
  EXPECT_EQ(Value(metrics_, kRejectionsTotal, "queue_full"), all);
  EXPECT_EQ(Value(metrics_, kReplicaRestartsTotal), all);
  EXPECT_DOUBLE_EQ(Value(metrics_, kReplicaBusyTotal), all * 0.0002);
  const HistogramValue batches = Distribution(metrics_, kBatchRows);
  EXPECT_EQ(batches.counts[2], all);  // 1, 2, 4.
  EXPECT_DOUBLE_EQ(batches.sum, all * 4.0);
  const HistogramValue requests = Distribution(metrics_, kRequestDuration);
  EXPECT_EQ(Count(requests), all);
  EXPECT_NEAR(requests.sum, all * 0.0004, 1e-9);
}

TEST_F(ModelMetricsTest, CountersOnlyGrowWhileThreadsRecord) {
  std::atomic<bool> done{false};
  Thread scraper("scrape", [&] {
    double last = 0;
    do {
      const double now = Value(metrics_, kRequestsTotal, "OK");
      EXPECT_GE(now, last);
      last = now;
    } while (!done);
  });
  OnThreads([this] {
    for (int i = 0; i < kEach; ++i) metrics_.RecordRequest(Success());
  });
  done = true;
}

TEST_F(ModelMetricsTest, SubMillisecondTimesFallIntoBucketsOfTheirOwn) {
  for (const int microseconds : {8, 20, 40, 90, 200, 400, 900}) {
    metrics_.RecordBatch(Batch(1, absl::Microseconds(microseconds)));
  }
  const HistogramValue execute = Distribution(metrics_, kExecute);
  EXPECT_THAT(std::vector<uint64_t>(execute.counts.begin(), execute.counts.begin() + 8),
              ElementsAre(1, 1, 1, 1, 1, 1, 1, 0));
}

TEST_F(ModelMetricsTest, AnswersThatAreNotFiniteAreCountedWhateverTheirCode) {
  RequestRecord flagged = Success();
  RequestRecord refused = Failure(absl::StatusCode::kInternal);
  flagged.non_finite = refused.non_finite = true;
  metrics_.RecordRequest(flagged);
  metrics_.RecordRequest(refused);
  metrics_.RecordRequest(Success());
  EXPECT_EQ(Value(metrics_, kNonFiniteTotal), 2);
}

TEST_F(ModelMetricsTest, RequestDurationLeavesFailuresOut) {
  metrics_.RecordRequest(Failure(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(Count(Distribution(metrics_, kRequestDuration)), 0);
  EXPECT_EQ(Value(metrics_, kRequestsTotal, "INVALID_ARGUMENT"), 1);
}

TEST_F(ModelMetricsTest, QueueWaitCountsThoseThatFailedInTheQueueButNotThoseThatNeverWaited) {
  RequestRecord expired = Failure(absl::StatusCode::kDeadlineExceeded);
  expired.queue = absl::Seconds(2);
  metrics_.RecordRequest(expired);
  metrics_.RecordRequest(Failure(absl::StatusCode::kInvalidArgument));
  metrics_.RecordRequest(Success());
  const HistogramValue wait = Distribution(metrics_, kQueueWait);
  EXPECT_EQ(Count(wait), 2);
  EXPECT_NEAR(wait.sum, 2.0001, 1e-9);
}

TEST_F(ModelMetricsTest, CodeThatIsNoStatusCodeCountsAsUnknown) {
  RequestRecord record;
  record.code = 99;
  metrics_.RecordRequest(record);
  EXPECT_EQ(Value(metrics_, kRequestsTotal, "UNKNOWN"), 1);
}

TEST_F(ModelMetricsTest, EverySeriesIsThereBeforeTheFirstRequest) {
  EXPECT_EQ(Value(metrics_, kRequestsTotal, "OK"), 0);
  EXPECT_EQ(Value(metrics_, kRequestsTotal, "UNAUTHENTICATED"), 0);
  EXPECT_EQ(Value(metrics_, kRejectionsTotal, "shutting_down"), 0);
  EXPECT_EQ(Count(Distribution(metrics_, kRequestDuration)), 0);
}

TEST_F(ModelMetricsTest, StatisticsTellKServesFigures) {
  clock_.Advance(absl::Seconds(10));
  metrics_.RecordRequest(Success());
  metrics_.RecordRequest(Success());
  metrics_.RecordRequest(Failure(absl::StatusCode::kInternal));
  metrics_.RecordBatch(Batch(4, absl::Microseconds(200)));
  metrics_.RecordBatch(Batch(4, absl::Microseconds(300)));
  metrics_.RecordBatch(Batch(8, absl::Microseconds(500)));
  clock_.Advance(absl::Seconds(3));

  const ModelStatistics statistics = metrics_.Statistics(absl::FromUnixMillis(1'800'000'000'000));
  EXPECT_EQ(statistics.last_inference_ms, 1'800'000'000'000 - 3000);
  EXPECT_EQ(statistics.inference_count, 4u);
  EXPECT_EQ(statistics.execution_count, 3u);
  EXPECT_EQ(statistics.success.count, 2u);
  EXPECT_EQ(statistics.success.ns, 800'000u);
  EXPECT_EQ(statistics.fail.count, 1u);
  EXPECT_EQ(statistics.fail.ns, 50'000u);
  EXPECT_EQ(statistics.queue.count, 2u);
  EXPECT_EQ(statistics.queue.ns, 200'000u);
  EXPECT_EQ(statistics.compute_input.ns, 20'000u);
  EXPECT_EQ(statistics.compute_infer.ns, 400'000u);
  EXPECT_EQ(statistics.compute_output.ns, 40'000u);
  ASSERT_THAT(statistics.batches, SizeIs(2));
  EXPECT_EQ(statistics.batches[0].rows, 4u);
  EXPECT_EQ(statistics.batches[0].compute_infer.count, 2u);
  EXPECT_EQ(statistics.batches[0].compute_infer.ns, 500'000u);
  EXPECT_EQ(statistics.batches[1].rows, 8u);
  EXPECT_EQ(statistics.batches[1].compute_input.count, 1u);
  EXPECT_EQ(statistics.batches[1].compute_input.ns, 10'000u);
}

TEST_F(ModelMetricsTest, StatisticsAreZeroBeforeTheFirstInference) {
  const ModelStatistics statistics = metrics_.Statistics(absl::FromUnixMillis(1'800'000'000'000));
  EXPECT_EQ(statistics.last_inference_ms, 0);
  EXPECT_EQ(statistics.execution_count, 0u);
  EXPECT_THAT(statistics.batches, SizeIs(0));
}

TEST_F(ModelMetricsTest, BatchesOfAModelWithoutBatchingCountAsSizeOne) {
  ModelMetrics unbatched("m", "1", 0, clock_);
  unbatched.RecordBatch(Batch(1, absl::Milliseconds(1)));
  const ModelStatistics statistics = unbatched.Statistics(absl::UnixEpoch());
  ASSERT_THAT(statistics.batches, SizeIs(1));
  EXPECT_EQ(statistics.batches[0].rows, 1u);
}

TEST_F(ModelMetricsTest, GaugesComeFromTheOwner) {
  metrics_.SetGauges([] {
    ModelGauges gauges;
    gauges.queue_depth = 5;
    gauges.queue_limit = 128;
    gauges.oldest_queued_age = absl::Milliseconds(250);
    gauges.in_flight = 9;
    gauges.ready_replicas = 2;
    gauges.busy_for = {absl::Milliseconds(4)};
    return gauges;
  });
  EXPECT_EQ(Value(metrics_, kQueueDepth), 5);
  EXPECT_EQ(Value(metrics_, kQueueLimit), 128);
  EXPECT_EQ(Value(metrics_, kQueueOldestAge), 0.25);
  EXPECT_EQ(Value(metrics_, kInFlight), 9);
  EXPECT_EQ(Value(metrics_, kReadyReplicas), 2);
  EXPECT_EQ(Value(metrics_, kBusyReplicas), 1);
}

TEST_F(ModelMetricsTest, ClearedGaugesAreLeftOut) {
  metrics_.ClearGauges(metrics_.SetGauges([] { return ModelGauges{}; }));
  const std::vector<Sample> samples = metrics_.Collect();
  EXPECT_EQ(Find(samples, kQueueDepth), nullptr);
  EXPECT_EQ(Find(samples, kSaturation), nullptr);
  EXPECT_NE(Find(samples, kReplicaRestartsTotal), nullptr);
}

TEST_F(ModelMetricsTest, OwnerThatGoesLeavesTheGaugesOfItsSuccessor) {
  const uint64_t old = metrics_.SetGauges([] { return ModelGauges(); });
  metrics_.SetGauges([] {
    ModelGauges gauges;
    gauges.queue_depth = 2;
    return gauges;
  });
  metrics_.ClearGauges(old);
  EXPECT_EQ(Value(metrics_, kQueueDepth), 2);
}

TEST_F(ModelMetricsTest, OwnerMayGoWhileScrapesRun) {
  std::atomic<bool> done{false};
  Thread scraper("scrape", [&] {
    while (!done) metrics_.Collect();
  });
  for (int i = 0; i < 200; ++i) {
    auto owner = std::make_unique<int>(i);  // Used after ClearGauges() it is a sanitizer's report.
    const uint64_t source = metrics_.SetGauges([state = owner.get()] {
      ModelGauges gauges;
      gauges.queue_depth = *state;
      return gauges;
    });
    metrics_.ClearGauges(source);
  }
  done = true;
}

TEST_F(ModelMetricsTest, DesiredReplicasIsDemandOverCapacity) {
  ModelGauges gauges;
  gauges.ready_replicas = 1;
  gauges.capacity = 10;
  metrics_.SetGauges([&gauges] { return gauges; });
  EXPECT_EQ(Value(metrics_, kDesiredReplicas), 0);
  clock_.Advance(absl::Seconds(100));
  for (int second = 0; second < 14; ++second) {  // Three times as many rows as can be run.
    for (int i = 0; i < 15; ++i) metrics_.RecordArrival(clock_.Now(), 2);
    metrics_.RecordBatch(Batch(10, absl::Milliseconds(900)));
    clock_.Advance(absl::Seconds(1));
  }
  gauges.waiting_rows = 128;  // The queue is full; the rest was refused.
  EXPECT_NEAR(Value(metrics_, kDesiredReplicas), 3, 1e-9);
  EXPECT_EQ(Value(metrics_, kArrivedRowsTotal), 14 * 30);
  clock_.Advance(absl::Seconds(60));
  gauges.waiting_rows = 0;
  EXPECT_EQ(Value(metrics_, kDesiredReplicas), 0);
}

TEST_F(ModelMetricsTest, DesiredReplicasCountsWhatWaitsWhereClientsAreHeldBack) {
  ModelGauges gauges;
  gauges.ready_replicas = 1;
  gauges.capacity = 10;
  gauges.waiting_rows = 140;
  metrics_.SetGauges([&gauges] { return gauges; });
  clock_.Advance(absl::Seconds(100));
  for (int second = 0; second < 14; ++second) {  // They send what is run, no more.
    metrics_.RecordArrival(clock_.Now(), 10);
    metrics_.RecordBatch(Batch(10, absl::Seconds(1)));
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_NEAR(Value(metrics_, kDesiredReplicas), 2, 1e-9);
}

TEST_F(ModelMetricsTest, DesiredReplicasStandsStillWhereCapacityIsNotKnown) {
  ModelGauges gauges;
  gauges.waiting_rows = 5;
  metrics_.SetGauges([&gauges] { return gauges; });
  metrics_.RecordArrival(clock_.Now(), 5);
  EXPECT_EQ(Value(metrics_, kDesiredReplicas), 1);
  gauges.waiting_rows = 0;
  EXPECT_EQ(Value(metrics_, kDesiredReplicas), 0);
}

TEST_F(ModelMetricsTest, DeadlinesAndCancelsAreCountedByStage) {
  metrics_.RecordDeadlineExceeded(RequestStage::kAdmission);
  metrics_.RecordDeadlineExceeded(RequestStage::kQueue);
  metrics_.RecordDeadlineExceeded(RequestStage::kQueue);
  metrics_.RecordCancelled(RequestStage::kExecution);
  EXPECT_EQ(Value(metrics_, kDeadlineExceededTotal, "admission"), 1);
  EXPECT_EQ(Value(metrics_, kDeadlineExceededTotal, "queue"), 2);
  EXPECT_EQ(Value(metrics_, kDeadlineExceededTotal, "execution"), 0);
  EXPECT_EQ(Value(metrics_, kCancelledTotal, "execution"), 1);
}

TEST_F(ModelMetricsTest, ReplicaIsInOneState) {
  metrics_.SetGauges([] {
    ModelGauges gauges;
    gauges.replicas.push_back(
        {.index = 1, .device = "gpu0", .state = ModelGauges::Replica::State::kFailed});
    return gauges;
  });
  EXPECT_EQ(Value(metrics_, kReplicaState, "ready"), 0);
  EXPECT_EQ(Value(metrics_, kReplicaState, "starting"), 0);
  EXPECT_EQ(Value(metrics_, kReplicaState, "failed"), 1);
}

TEST_F(ModelMetricsTest, LoadDurationIsTheLastLoads) {
  metrics_.SetGauges([] { return ModelGauges{}; });
  metrics_.SetLoadDuration(absl::Milliseconds(1500));
  EXPECT_EQ(Value(metrics_, kModelLoad), 1.5);
}

TEST_F(ModelMetricsTest, SaturationIsBusyTimeOverReplicaTime) {
  metrics_.SetGauges([] {
    ModelGauges gauges;
    gauges.ready_replicas = 2;
    return gauges;
  });
  EXPECT_EQ(Value(metrics_, kSaturation), 0);
  clock_.Advance(absl::Seconds(10));
  metrics_.RecordBatch(Batch(1, absl::Seconds(5)));
  EXPECT_NEAR(Value(metrics_, kSaturation), 5.0 / 20.0, 1e-9);
  clock_.Advance(absl::Seconds(60));
  EXPECT_EQ(Value(metrics_, kSaturation), 0);
}

TEST_F(ModelMetricsTest, SaturationCountsBatchesThatStillRun) {
  metrics_.SetGauges([] {
    ModelGauges gauges;
    gauges.ready_replicas = 2;
    gauges.busy_for = {absl::Hours(1)};  // One of two is busy for longer than the window.
    return gauges;
  });
  clock_.Advance(absl::Seconds(100));
  EXPECT_NEAR(Value(metrics_, kSaturation), 0.5, 1e-9);
}

TEST_F(ModelMetricsTest, SaturationIsNeverAboveOne) {
  metrics_.SetGauges([] {
    ModelGauges gauges;
    gauges.ready_replicas = 1;
    return gauges;
  });
  clock_.Advance(absl::Seconds(10));
  metrics_.RecordBatch(Batch(1, absl::Seconds(10)));
  metrics_.RecordBatch(Batch(1, absl::Seconds(10)));
  EXPECT_EQ(Value(metrics_, kSaturation), 1);
}

TEST_F(ModelMetricsTest, WithoutReplicasAQueueIsSaturationAndNoQueueIsNone) {
  int64_t depth = 0;
  metrics_.SetGauges([&] {
    ModelGauges gauges;
    gauges.queue_depth = depth;
    return gauges;
  });
  EXPECT_EQ(Value(metrics_, kSaturation), 0);
  depth = 1;
  EXPECT_EQ(Value(metrics_, kSaturation), 1);
}

}  // namespace
}  // namespace millrace
