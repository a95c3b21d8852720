// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/load_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <optional>

#include "server/base/thread.h"
#include "tests/fakes/fake_clock.h"

namespace millrace {
namespace {

constexpr absl::Duration kBatch = absl::Milliseconds(10);

// Replicas that take the oldest request each, for ten milliseconds of virtual time.
class Replicas {
 public:
  explicit Replicas(int count) : count_(count) {}

  LoadDriver::Submit submit() {
    return [this](Responder responder) {
      MutexLock lock(mutex_);
      waiting_.push_back(std::move(responder));
      most_ = std::max(most_, waiting_.size());
    };
  }
  LoadDriver::Cancel cancel() {
    return [this] {
      while (auto responder = Take()) responder->Respond(Response::Error(absl::CancelledError("")));
    };
  }

  // Begins a batch of one request in each replica.
  std::vector<Responder> Start() {
    std::vector<Responder> batch;
    for (int i = 0; i < count_; ++i) {
      if (auto responder = Take()) batch.push_back(*std::move(responder));
    }
    return batch;
  }

  static void Finish(std::vector<Responder> batch, const absl::Status& status) {
    for (size_t i = 0; i < batch.size(); ++i) {
      Response response = Response::Error(status);
      response.timings.replica = static_cast<int>(i);
      batch[i].Respond(std::move(response));
    }
  }

  size_t most() {
    MutexLock lock(mutex_);
    return most_;
  }

 private:
  std::optional<Responder> Take() {
    MutexLock lock(mutex_);
    if (waiting_.empty()) return std::nullopt;
    Responder responder = std::move(waiting_.front());
    waiting_.pop_front();
    return responder;
  }

  const int count_;
  Mutex mutex_;
  std::deque<Responder> waiting_ ABSL_GUARDED_BY(mutex_);
  size_t most_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Runs a load to its end; batches end with `status`. `took`: the time of it all.
absl::StatusOr<Trial> Drive(Replicas& replicas, const LoadDriver::Options& options,
                            const absl::Status& status = absl::OkStatus(),
                            absl::Duration* took = nullptr) {
  FakeClock clock;
  const absl::Time begin = clock.Now();
  Mutex mutex;
  CondVar changed;
  bool leave = false;
  std::optional<absl::StatusOr<Trial>> result;
  const auto driver = LoadDriver::Create(options, clock, replicas.submit(), replicas.cancel());
  Thread thread("driver", [&] {
    absl::StatusOr<Trial> found = driver->Run();
    MutexLock lock(mutex);
    result = std::move(found);
    // So that it is blocked whenever it has nothing to do.
    while (!leave) clock.WaitUntil(changed, mutex, absl::InfiniteFuture());
  });
  for (;;) {
    clock.Advance(absl::ZeroDuration());
    clock.WaitUntilBlocked(1);
    {
      MutexLock lock(mutex);
      leave = result.has_value();
    }
    if (leave) break;
    std::vector<Responder> batch = replicas.Start();
    clock.Advance(kBatch);
    clock.WaitUntilBlocked(1);
    replicas.Finish(std::move(batch), status);
  }
  clock.Advance(absl::ZeroDuration());
  if (took != nullptr) *took = clock.Now() - begin;
  return *result;
}

TEST(LoadDriver, FullBatchesKeepEveryReplicaBusy) {
  Replicas replicas(2);
  const auto trial = Drive(replicas, {.load = {.kind = Load::Kind::kFullBatches},
                                      .replicas = 2,
                                      .rows = 8,
                                      .length = absl::Milliseconds(500)});
  ASSERT_TRUE(trial.ok()) << trial.status();
  // Two replicas with 8 rows every 10 ms, and each request waits for one before it.
  EXPECT_NEAR(trial->rows_per_second, 1600, 1);
  EXPECT_EQ(trial->p50, 2 * kBatch);
  EXPECT_EQ(replicas.most(), 4);
}

TEST(LoadDriver, OneRequestIsAloneAtAnyTime) {
  Replicas replicas(2);
  const auto trial = Drive(replicas, {.load = {.kind = Load::Kind::kOneRequest},
                                      .replicas = 2,
                                      .length = absl::Milliseconds(500)});
  ASSERT_TRUE(trial.ok()) << trial.status();
  EXPECT_EQ(replicas.most(), 1);
  EXPECT_EQ(trial->p99, kBatch);
}

TEST(LoadDriver, SlowBatchesMakeTheRunLonger) {
  Replicas replicas(1);
  const auto trial = Drive(replicas, {.load = {.kind = Load::Kind::kFullBatches},
                                      .replicas = 1,
                                      .rows = 1,
                                      .length = absl::Milliseconds(8)});
  ASSERT_TRUE(trial.ok()) << trial.status();
  EXPECT_NEAR(trial->rows_per_second, 100, 1);
}

TEST(LoadDriver, RequestsAtRandomAreAllAnsweredAndCounted) {
  Replicas replicas(8);
  const auto trial = Drive(replicas, {.load = {.kind = Load::Kind::kAtRandom, .rate = 200},
                                      .replicas = 8,
                                      .length = absl::Seconds(5)});
  ASSERT_TRUE(trial.ok()) << trial.status();
  EXPECT_NEAR(trial->rows_per_second, 200, 40);
  EXPECT_LE(trial->p50, 2 * kBatch);
}

TEST(LoadDriver, FirstBatchThatTakesLongerThanAnyRunMayEndsIt) {
  Replicas replicas(1);
  absl::Duration took;
  const auto trial = Drive(replicas,
                           {.load = {.kind = Load::Kind::kFullBatches},
                            .replicas = 1,
                            .rows = 1,
                            .length = absl::Milliseconds(1)},
                           absl::OkStatus(), &took);
  ASSERT_TRUE(trial.ok()) << trial.status();
  EXPECT_NEAR(trial->rows_per_second, 100, 1);
  EXPECT_LE(took, 2 * kBatch);  // The second is under way by then.
}

TEST(LoadDriver, RequestsAtRandomThatFailAfterTheLastWasSentFailTheRun) {
  Replicas replicas(1);
  // All of them are sent before the first batch is done.
  const auto trial = Drive(replicas,
                           {.load = {.kind = Load::Kind::kAtRandom, .rate = 2000},
                            .replicas = 1,
                            .length = absl::Milliseconds(5)},
                           absl::InternalError("it raised"));
  EXPECT_EQ(trial.status().message(), "it raised");
}

TEST(LoadDriver, FirstErrorEndsTheRun) {
  Replicas replicas(1);
  const auto trial = Drive(replicas,
                           {.load = {.kind = Load::Kind::kFullBatches},
                            .replicas = 1,
                            .rows = 1,
                            .length = absl::Seconds(5)},
                           absl::InternalError("it raised"));
  EXPECT_EQ(trial.status().message(), "it raised");
}

}  // namespace
}  // namespace millrace
