// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "server/base/clock.h"
#include "server/base/timer.h"
#include "server/dispatch/core_leases.h"
#include "server/dispatch/dispatcher.h"
#include "server/metrics/model_metrics.h"
#include "tests/fakes/echo_model.h"
#include "tests/fakes/hand_driven_runner.h"
#include "tests/fakes/plain_batch_buffer.h"

namespace millrace {

// A dispatcher of the echo model with hand-driven replicas. Thread-safe but for AddRunner().
class EchoPool {
 public:
  struct Options {
    Dispatcher::Options dispatch = {};
    int64_t max_batch_size = 8;
    size_t buffers = 4;
    size_t most_row_bytes = 1 << 20;
    int64_t output_width = -1;  // As the signature has it.
  };

  EchoPool(Options options, Clock& clock, Timer& timer, CoreLeases& leases)
      : clock_(clock),
        signature_(EchoSignature(options.max_batch_size, options.output_width)),
        metrics_("echo", "1", options.max_batch_size, clock) {
    std::vector<BatchBuffer*> free;
    for (size_t i = 0; i < options.buffers; ++i) {
      free.push_back(&buffers_.emplace_back(options.most_row_bytes));
    }
    dispatcher_ = Dispatcher::Create(std::move(options.dispatch), signature_, std::move(free),
                                     clock, timer, leases, metrics_);
  }

  HandDrivenRunner& AddRunner(int cores = 0) {
    HandDrivenRunner& runner = runners_.emplace_back(dispatcher_.get(), signature_->batched(),
                                                     static_cast<int>(runners_.size()), cores);
    dispatcher_->AddRunner(&runner);
    return runner;
  }

  // A request that has arrived just now.
  std::shared_ptr<PendingRequest> Pending(const std::vector<int32_t>& values, int64_t rows,
                                          Responder responder,
                                          std::shared_ptr<const Caller> caller) const {
    auto pending = EchoPending(*signature_, values, rows, std::move(responder), std::move(caller));
    pending->arrival = clock_.Now();
    return pending;
  }

  // Nothing waits or runs, and nothing leaked.
  bool Quiet() const {
    const Dispatcher::Gauges gauges = dispatcher_->gauges();
    return gauges.queued_rows == 0 && gauges.in_flight == 0 &&
           gauges.idle_runners == static_cast<int>(runners_.size()) &&
           gauges.free_buffers == buffers_.size();
  }

  Dispatcher& dispatcher() { return *dispatcher_; }
  const ModelSignature& signature() const { return *signature_; }
  ModelMetrics& metrics() { return metrics_; }
  std::deque<HandDrivenRunner>& runners() { return runners_; }

 private:
  Clock& clock_;
  const std::shared_ptr<const ModelSignature> signature_;
  ModelMetrics metrics_;
  std::deque<PlainBatchBuffer> buffers_;
  std::deque<HandDrivenRunner> runners_;
  std::shared_ptr<Dispatcher> dispatcher_;
};

}  // namespace millrace
