// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/intrusive_list.h"
#include "server/base/mutex.h"
#include "server/dispatch/caller.h"
#include "server/dispatch/time_heap.h"
#include "server/inference/batch_buffer.h"
#include "server/inference/model_signature.h"
#include "server/inference/responder.h"
#include "server/inference/response.h"

namespace millrace {

struct FairLine;

// A request on its way from Submit() to its answer. The dispatcher guards the fields that say how
// far it has come; the answer has a lock of its own, since parts of a large request may come back
// from several replicas at once.
class PendingRequest {
 public:
  PendingRequest(CheckedRequest checked, Responder responder, std::shared_ptr<const Caller> caller)
      : checked_(std::move(checked)),
        needs_preparation_(checked_.filler != nullptr && checked_.filler->needs_preparation()),
        caller_(std::move(caller)),
        responder_(std::move(responder)) {}

  // Set before Submit().
  std::string id;
  Parameters echoes;  // Of the request, for the answer.
  bool wants_timings = false;
  std::shared_ptr<RequestTrace> trace;  // Null: nobody wants to know.
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();
  // The client's own limit, from arrival on. The dispatcher shortens the deadline by it.
  std::optional<absl::Duration> timeout;
  int level = 1;                          // Of priority; 1 is the highest.
  Overflow overflow = Overflow::kReject;  // One of the flow or, where it has none, the model.
  std::shared_ptr<const void> model;      // Keeps alive what runs it; gone with the request.

  // The dispatcher's, under its lock.
  int64_t rows_claimed = 0;     // Rows that found their place in a batch.
  int64_t rows_taken = 0;       // Rows that somebody has begun to prepare.
  int64_t rows_prepared = 0;    // Rows that are.
  absl::Duration prepare_time;  // Of all rows together.
  int deaths = 0;               // Replicas that died while they ran it alone.
  int places = 0;               // Where it waits: the queue or the door, and batches not yet taken.
  bool started = false;         // A replica has taken rows of it.
  bool suspect = false;         // A replica died of its payload once, so it is run alone.
  bool out_of_turn = false;     // It was staged before those whose turn it was.
  std::shared_ptr<PendingRequest> self;     // Itself, while it waits somewhere.
  ListHook<PendingRequest> in_line;         // Of its flow in the queue, or of those at the door.
  ListHook<PendingRequest> by_arrival;      // In the queue, among those of its tier.
  ListHook<PendingRequest> in_flow;         // Among all of its flow that wait.
  ListHook<PendingRequest> in_caller;       // Among all of its caller that wait.
  ListHook<PendingRequest> in_preparation;  // In the queue, while rows are to be taken.
  FairLine* line = nullptr;                 // Its flow's in the queue; null while it isn't there.
  int tier = 0;                             // See FairQueue.
  double row_cost = 0;     // What a row cost when it came; see CostTable::RowCost().
  int64_t held_bytes = 0;  // Of its payload, while they count; see MemoryBudget.
  // Until when a replica must take it, and until when it must so that it makes its deadline.
  absl::Time expiry = absl::InfiniteFuture();
  absl::Time latest_start = absl::InfiniteFuture();
  size_t expiry_place = kNotInHeap;
  size_t urgency_place = kNotInHeap;
  bool delayed = false;  // Its queue timeout has passed, and it runs all the same.

  int64_t rows() const { return checked_.rows; }
  const std::shared_ptr<const RowShape>& row_shape() const { return checked_.row_shape; }
  // Bytes that its inputs take.
  int64_t input_bytes() const { return checked_.held_bytes; }
  Filler& filler() const { return *checked_.filler; }
  bool needs_preparation() const { return needs_preparation_; }
  // Whether its rows may join batches.
  bool prepared() const { return !needs_preparation_ || rows_prepared == rows(); }
  const Caller& caller() const { return *caller_; }
  const Flow& flow() const { return caller_->flow(); }

  // An answer that is complete, and the right to give it.
  struct Answer {
    Responder responder;
    Response response;
  };

  // Copies the rows [first_row, first_row + rows) from a batch's outputs, where they lie from
  // `batch_row` on. Returns the answer when they were the last, or when they don't fit the others
  // or hold what the signature refuses.
  std::optional<Answer> AddRows(const ModelSignature& signature,
                                absl::Span<const OutputView> outputs, int64_t batch_row,
                                int64_t first_row, int64_t rows, const Timings& timings)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The answer that is an error; nullopt where the request has been answered.
  std::optional<Answer> Fail(const ModelSignature& signature, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Needs no lock: an answer can be long in the making.
  bool answered() const { return answered_.load(std::memory_order_acquire); }

 private:
  absl::Status AllocateOutputs(const ModelSignature& signature,
                               absl::Span<const OutputView> outputs)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CopyRows(const ModelSignature& signature, absl::Span<const OutputView> outputs,
                        int64_t batch_row, int64_t first_row, int64_t rows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Copies rows of one output, which lie at `from`, to their place, and counts what isn't finite
  // where the signature wants that.
  absl::Status CopyTo(size_t output, const ModelSignature& signature,
                      absl::Span<const std::byte> from, int64_t first_row, int64_t rows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Answer TakeAnswer(const ModelSignature& signature) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CheckedRequest checked_;
  const bool needs_preparation_;
  const std::shared_ptr<const Caller> caller_;

  mutable Mutex mutex_;
  Responder responder_ ABSL_GUARDED_BY(mutex_);
  Response response_ ABSL_GUARDED_BY(mutex_);  // Grows until all rows are there.
  int64_t rows_done_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> answered_{false};
};

}  // namespace millrace
