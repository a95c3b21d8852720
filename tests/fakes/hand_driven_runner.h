// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/dispatch/dispatcher.h"
#include "tests/fakes/echo_model.h"
#include "tests/fakes/plain_batch_buffer.h"

namespace millrace {

// A replica of the echo model whose batches end when the test says so. Thread-safe.
class HandDrivenRunner final : public BatchRunner {
 public:
  HandDrivenRunner(Dispatcher* dispatcher, bool batched, int index = 0, int cores = 0)
      : dispatcher_(dispatcher), batched_(batched), index_(index), cores_(cores) {}

  void Run(std::unique_ptr<Batch> batch) override ABSL_LOCKS_EXCLUDED(mutex_) {
    auto& buffer = static_cast<PlainBatchBuffer&>(*batch->buffer());
    EXPECT_FALSE(buffer.runs.exchange(true)) << "Two replicas run one buffer.";
    EXPECT_EQ(buffer.sealed_rows, batch->rows());
    EXPECT_GT(batch->rows(), 0);
    MutexLock lock(mutex_);
    EXPECT_EQ(batch_, nullptr) << "A replica runs one batch at a time.";
    batch_ = std::move(batch);
    ++runs_;
    changed_.NotifyAll();
  }

  int lease_cores() const override { return cores_; }

  bool busy() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return batch_ != nullptr;
  }

  // Batches taken so far.
  int runs() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    return runs_;
  }

  // The values in the running batch's sealed rows.
  std::vector<int32_t> Inputs() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    if (batch_ == nullptr) return {};
    auto& buffer = static_cast<PlainBatchBuffer&>(*batch_->buffer());
    return Int32s(buffer.InputRows(0, 0, buffer.sealed_rows));
  }

  // Blocks until a batch runs; false once Stop() was called and none does.
  bool WaitForBatch() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    while (batch_ == nullptr && !stopped_) changed_.Wait(mutex_);
    return batch_ != nullptr;
  }

  void Stop() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    stopped_ = true;
    changed_.NotifyAll();
  }

  // Ends the running batch as the model would.
  void Complete(absl::Duration execute = absl::Milliseconds(1)) {
    std::unique_ptr<Batch> batch = Take();
    auto& buffer = static_cast<PlainBatchBuffer&>(*batch->buffer());
    const auto outputs = RunEcho(buffer, batched_);
    Finish(std::move(batch), outputs, execute);
  }

  // Ends the running batch with `outputs`.
  void CompleteWith(const absl::StatusOr<std::vector<OutputView>>& outputs) {
    Finish(Take(), outputs, absl::Milliseconds(1));
  }

  // Dies in the middle of the running batch, scribbling over its buffer.
  void Die() {
    std::unique_ptr<Batch> batch = Take();
    auto& buffer = static_cast<PlainBatchBuffer&>(*batch->buffer());
    buffer.ScribbleOverInputs();
    buffer.runs = false;
    dispatcher_->Requeue(this, std::move(batch), "was killed by the test");
  }

 private:
  std::unique_ptr<Batch> Take() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);
    EXPECT_NE(batch_, nullptr) << "No batch runs.";
    return std::move(batch_);
  }

  void Finish(std::unique_ptr<Batch> batch, const absl::StatusOr<std::vector<OutputView>>& outputs,
              absl::Duration execute) {
    static_cast<PlainBatchBuffer&>(*batch->buffer()).runs = false;
    dispatcher_->Finish(this, std::move(batch), outputs, execute, index_);
  }

  Dispatcher* const dispatcher_;
  const bool batched_;
  const int index_;
  const int cores_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::unique_ptr<Batch> batch_ ABSL_GUARDED_BY(mutex_);
  int runs_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace
