// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/simulated_model.h"

#include <cmath>
#include <utility>

#include "server/base/check.h"

namespace millrace {
namespace {

// One input and one output, whose rows are empty: dims [shape, 0].
std::shared_ptr<const ModelSignature> EmptySignature(int64_t max_batch_size) {
  const std::vector<TensorSpec> inputs = {{"X", DataType::kInt32, {-1, 0}}};
  const std::vector<TensorSpec> outputs = {{"Y", DataType::kInt32, {-1, 0}}};
  return std::make_shared<ModelSignature>("simulated", 1, max_batch_size, inputs, outputs);
}

std::shared_ptr<const RowShape> EmptyRows(int shape) {
  RowShape rows;
  rows.dims.push_back({shape, 0});
  rows.row_bytes.push_back(0);
  return std::make_shared<RowShape>(std::move(rows));
}

int ShapeOf(const RowShape& rows) { return static_cast<int>(rows.dims[0][0]); }

class EmptyFiller final : public Filler {
 public:
  absl::Status Fill(int64_t /*first_row*/, int64_t /*rows*/,
                    absl::Span<const absl::Span<std::byte>> /*areas*/) const override {
    return absl::OkStatus();
  }
  uint64_t Fingerprint() const override { return 0; }
};

}  // namespace

class SimulatedModel::Buffer final : public BatchBuffer {
 public:
  absl::StatusOr<int64_t> Open(const RowShape& /*shape*/, int64_t capacity) override {
    return capacity;
  }
  absl::Span<std::byte> InputRows(int /*input*/, int64_t /*row*/, int64_t /*count*/) override {
    return {&nothing_, 0};
  }
  void Seal(int64_t /*rows*/) override {}

 private:
  std::byte nothing_{};
};

class SimulatedModel::Replica final : public BatchRunner, public Actor {
 public:
  Replica(SimulatedModel* model, int index) : model_(model), index_(index) {}

  void Run(std::unique_ptr<Batch> batch) override {
    MILLRACE_CHECK(batch_ == nullptr, "A replica runs one batch at a time.");
    MILLRACE_CHECK(batch->rows() > 0 && batch->rows() <= model_->options_.max_batch_size,
                   "A batch has at least a row and at most max_batch_size of them.");
    batch_ = std::move(batch);
    execution_ = model_->Execution(ShapeOf(batch_->shape()), batch_->rows());
    model_->loop_.At(model_->loop_.now() + execution_, this);
  }

  int lease_cores() const override { return 1; }

  void Act(uint64_t /*what*/) override {
    ++model_->batches_run_;
    model_->rows_run_ += batch_->rows();
    OutputView output = {.data_type = DataType::kInt32, .shape = {batch_->rows(), 0}, .data = {}};
    outputs_.assign(1, std::move(output));
    model_->dispatcher_->Finish(this, std::move(batch_), outputs_, execution_, index_);
  }

 private:
  SimulatedModel* const model_;
  const int index_;
  std::unique_ptr<Batch> batch_;
  absl::Duration execution_;
  std::vector<OutputView> outputs_;
};

SimulatedModel::SimulatedModel(Options options, EventLoop& loop, uint64_t seed)
    : options_(std::move(options)),
      loop_(loop),
      random_(seed),
      signature_(EmptySignature(options_.max_batch_size)),
      metrics_("simulated", "1", options_.max_batch_size, loop.clock()),
      leases_(options_.replicas) {
  for (size_t shape = 0; shape < options_.shapes.size(); ++shape) {
    shapes_.push_back(EmptyRows(static_cast<int>(shape)));
  }
  // A running batch per replica, a staged one per shape, and one whose outputs are copied out.
  const size_t buffers = static_cast<size_t>(options_.replicas) + shapes_.size() + 1;
  std::vector<BatchBuffer*> free;
  for (size_t i = 0; i < buffers; ++i) {
    free.push_back(buffers_.emplace_back(std::make_unique<Buffer>()).get());
  }
  dispatcher_ = Dispatcher::Create(options_.dispatch, signature_, std::move(free), loop.clock(),
                                   loop.timer(), leases_, metrics_);
  // What the warm-up has measured.
  for (const auto& shape : shapes_) {
    const BatchTime& time = options_.shapes[static_cast<size_t>(ShapeOf(*shape))];
    for (const int64_t rows : {int64_t{1}, options_.max_batch_size}) {
      dispatcher_->ExpectCost(*shape, ReplicaKind::kCpu, rows, time.Of(rows));
    }
  }
  for (int i = 0; i < options_.replicas; ++i) {
    dispatcher_->AddRunner(replicas_.emplace_back(std::make_unique<Replica>(this, i)).get());
  }
}

SimulatedModel::~SimulatedModel() = default;

std::shared_ptr<PendingRequest> SimulatedModel::MakeRequest(
    int shape, int64_t rows, Responder responder, std::shared_ptr<const Caller> caller) const {
  CheckedRequest checked;
  checked.rows = rows;
  checked.row_shape = shapes_[static_cast<size_t>(shape)];
  for (const size_t bytes : checked.row_shape->row_bytes) {
    checked.held_bytes += static_cast<int64_t>(bytes) * rows;
  }
  checked.filler = std::make_unique<EmptyFiller>();
  checked.outputs.push_back(0);
  auto request =
      std::make_shared<PendingRequest>(std::move(checked), std::move(responder), std::move(caller));
  request->arrival = loop_.now();
  request->overflow = request->flow().overflow().value_or(Overflow::kBlock);
  return request;
}

bool SimulatedModel::Quiet() const {
  const Dispatcher::Gauges gauges = dispatcher_->gauges();
  return gauges.queued_rows == 0 && gauges.in_flight == 0 &&
         gauges.idle_runners == options_.replicas && gauges.free_buffers == buffers_.size();
}

absl::Duration SimulatedModel::Execution(int shape, int64_t rows) {
  const absl::Duration mean = options_.shapes[static_cast<size_t>(shape)].Of(rows);
  if (options_.noise == 0) return mean;
  return mean * std::exp(std::normal_distribution<double>(0, options_.noise)(random_));
}

}  // namespace millrace
