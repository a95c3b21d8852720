// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// What a request costs in the scheduler, by the number of flows: time, and allocations in steady
// state. Run by `./dev bench scheduler`.

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <memory>
#include <new>
#include <vector>

#include "server/base/clock.h"
#include "server/dispatch/dispatcher.h"
#include "server/dispatch/waiting_room.h"
#include "tests/fakes/echo_model.h"
#include "tests/fakes/manual_timer.h"

namespace {

std::atomic<int64_t> allocations{0};

}  // namespace

// Counts what everything here allocates. Not inlined, or GCC takes new and free for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t /*size*/) noexcept {
  std::free(memory);
}

namespace millrace {
namespace {

// Throws answers away.
class Nobody final : public ResponseSink {
 public:
  void Deliver(uint64_t /*place*/, Response&& /*response*/) override {}
};

constexpr int64_t kMaxBatchSize = 32;

// Requests of many flows, to be submitted again and again.
class Crowd {
 public:
  Crowd(int64_t flows, int64_t each) {
    for (int64_t i = 0; i < flows; ++i) {
      callers_.push_back(std::make_shared<Caller>(std::make_shared<Flow>()));
      for (int64_t k = 0; k < each; ++k) {
        requests_.push_back(EchoPending(*signature_, {1}, 1, Responder(nobody_, 0), callers_[i]));
      }
    }
  }

  std::vector<std::shared_ptr<PendingRequest>>& requests() { return requests_; }
  const std::shared_ptr<Caller>& caller(size_t i) { return callers_[i % callers_.size()]; }
  const std::shared_ptr<const ModelSignature>& signature() const { return signature_; }
  Responder responder() { return Responder(nobody_, 0); }

 private:
  const std::shared_ptr<const ModelSignature> signature_ = EchoSignature(kMaxBatchSize);
  const std::shared_ptr<Nobody> nobody_ = std::make_shared<Nobody>();
  std::vector<std::shared_ptr<Caller>> callers_;
  std::vector<std::shared_ptr<PendingRequest>> requests_;
};

void CountAllocations(benchmark::State& state, int64_t before) {
  state.counters["allocations"] = benchmark::Counter(
      static_cast<double>(allocations.load() - before), benchmark::Counter::kAvgIterations);
}

// Submit and select: a request enters the waiting room, and the one whose turn it is gets its row.
// Every flow has a request waiting. `deadlines`: each has one.
void SubmitAndSelect(benchmark::State& state, bool deadlines) {
  const int64_t flows = state.range(0);
  Crowd crowd(flows, 2);
  WaitingRoom room({1 << 30});
  absl::Time now = absl::UnixEpoch();
  const auto enter = [&](PendingRequest& request) {
    now += absl::Nanoseconds(100);
    request.arrival = now;
    request.rows_claimed = 0;
    // Not in order: some flows are more patient than others.
    if (deadlines) request.expiry = now + absl::Nanoseconds(1000 + request.flow().id() * 77 % 1000);
    room.Enter(request);
  };
  std::vector<PendingRequest*> outside;
  for (size_t i = 0; i < crowd.requests().size(); ++i) {
    if (i % 2 == 0) {
      enter(*crowd.requests()[i]);
    } else {
      outside.push_back(crowd.requests()[i].get());
    }
  }
  size_t next_in = 0;
  const auto step = [&] {
    enter(*outside[next_in]);
    ShapeGroup* const group = room.queue().NextGroup([](const ShapeGroup&) { return true; });
    PendingRequest* const next =
        room.queue().Next(*group, group->tier(), kMaxBatchSize, kMaxBatchSize, 1);
    room.Claim(*next, 1, 1);
    outside[next_in] = next;
    if (++next_in == outside.size()) next_in = 0;
  };
  for (size_t i = 0; i < 4 * outside.size(); ++i) step();  // Until it has been as full as it gets.
  const int64_t before = allocations.load();
  for (auto _ : state) step();
  CountAllocations(state, before);
}
BENCHMARK_CAPTURE(SubmitAndSelect, fair, false)->RangeMultiplier(10)->Range(10, 10000);
BENCHMARK_CAPTURE(SubmitAndSelect, with_deadlines, true)->RangeMultiplier(10)->Range(10, 10000);

// Rows that nobody writes.
class NoBuffer final : public BatchBuffer {
 public:
  absl::StatusOr<int64_t> Open(const RowShape& /*shape*/, int64_t capacity) override {
    return capacity;
  }
  absl::Span<std::byte> InputRows(int /*input*/, int64_t row, int64_t count) override {
    return {memory_ + 4 * row, static_cast<size_t>(4 * count)};
  }
  void Seal(int64_t /*rows*/) override {}

 private:
  std::byte memory_[4 * kMaxBatchSize];
};

// A replica whose batch ends when the benchmark says so.
class Runner final : public BatchRunner {
 public:
  void Run(std::unique_ptr<Batch> batch) override { batch_ = std::move(batch); }
  int lease_cores() const override { return 0; }
  std::unique_ptr<Batch> Take() { return std::move(batch_); }

 private:
  std::unique_ptr<Batch> batch_;
};

// A request's whole way through the dispatcher, but for making it and its answer: submitted,
// staged, written into its row, taken, answered. Batches of 32.
void ThroughTheDispatcher(benchmark::State& state) {
  const auto flows = static_cast<size_t>(state.range(0));
  Crowd crowd(static_cast<int64_t>(flows), 0);
  ManualTimer timer;
  CoreLeases leases(1);
  ModelMetrics metrics("echo", "1", kMaxBatchSize, Clock::Real());
  std::deque<NoBuffer> buffers(3);
  std::vector<BatchBuffer*> free;
  for (NoBuffer& buffer : buffers) free.push_back(&buffer);
  Dispatcher::Options options;
  options.max_queue_rows = 1 << 30;
  const auto dispatcher = Dispatcher::Create(std::move(options), crowd.signature(), std::move(free),
                                             Clock::Real(), timer, leases, metrics);
  Runner runner;
  dispatcher->AddRunner(&runner);
  // Requests are made beforehand: that is the caller's cost.
  std::vector<std::shared_ptr<PendingRequest>> made;
  size_t next = 0;
  const auto make = [&] {
    made.clear();
    for (int64_t i = 0; i < kMaxBatchSize; ++i) {
      made.push_back(
          EchoPending(*crowd.signature(), {1}, 1, crowd.responder(), crowd.caller(next++)));
      made.back()->arrival = Clock::Real().Now();
    }
  };
  std::vector<std::byte> output(4 * kMaxBatchSize);
  const auto finish = [&] {
    std::unique_ptr<Batch> batch = runner.Take();
    const int64_t rows = batch->rows();
    const std::vector<OutputView> outputs = {
        {.data_type = DataType::kInt32,
         .shape = {rows, 1},
         .data = absl::MakeConstSpan(output).subspan(0, static_cast<size_t>(4 * rows))}};
    dispatcher->Finish(&runner, std::move(batch), outputs, absl::Microseconds(10), 0);
  };
  for (size_t i = 0; i < flows; i += kMaxBatchSize) {  // Every flow has a request waiting.
    make();
    for (auto& request : made) dispatcher->Submit(std::move(request));
  }
  int64_t counted = 0;
  for (auto _ : state) {
    state.PauseTiming();
    make();
    const int64_t before = allocations.load();
    state.ResumeTiming();
    for (auto& request : made) dispatcher->Submit(std::move(request));
    finish();
    state.PauseTiming();
    counted += allocations.load() - before;
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * kMaxBatchSize);
  state.counters["allocations_per_request"] = static_cast<double>(counted) /
                                              static_cast<double>(state.iterations()) /
                                              static_cast<double>(kMaxBatchSize);
  while (runner.Take() != nullptr) {
  }
}
BENCHMARK(ThroughTheDispatcher)->RangeMultiplier(10)->Range(10, 10000);

}  // namespace
}  // namespace millrace

BENCHMARK_MAIN();
