// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "grpcpp/server_context.h"
#include "grpcpp/support/async_stream.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/dispatch/caller.h"
#include "server/metrics/stream_metrics.h"
#include "server/ordering/response_sequencer.h"
#include "server/ordering/stream_window.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/completion_tag.h"
#include "server/rpc/infer_context.h"
#include "server/rpc/stream_glance.h"
#include "server/rpc/stream_terms.h"

namespace millrace {

class OpenStreams;

// One ModelStreamInfer call, from its accept to its last tag: reads requests while there is room
// for them, and writes the answers in the order that its terms say. Thread-safe: I/O threads
// complete its tags, any thread answers.
//
// Invariants:
//  1. A Read is posted only while StreamWindow has room, nothing is parked, and the stream isn't
//     ending. So the memory of a stream whose peer doesn't read is bounded: by the window where its
//     requests block or are rejected, else by what the dispatchers let wait and run and by the cap
//     on answers that are decided; and no request is read above StreamLimits::max_bytes.
//  2. One Read and one Write are out at a time; Finish comes after the last Write.
//  3. Lives until every operation that it started has come back.
//  4. Whatever is read is answered before a stream ends that drains, but for what takes longer than
//     StreamLimits::age_grace.
class InferStream final : public std::enable_shared_from_this<InferStream> {
 public:
  // Waits for a stream on `queue`; each one that comes makes place for the next. Does nothing once
  // the gate is closed.
  static void Accept(const InferContext& context, OpenStreams& open_streams,
                     grpc::ServerCompletionQueue* queue);

  ~InferStream();

  // Ends the stream in order, since the server shuts down. A client that asked for a notice gets
  // it, and may send what it has begun and half-close; then, or after kNoticePeriod, or where it
  // asked for none at once, no more Reads are posted. Once every request that was read is answered
  // the stream ends with the trailer `millrace-answered`: OK where the client had half-closed, else
  // UNAVAILABLE.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

  // What those see who look on.
  StreamGlance Look() const ABSL_LOCKS_EXCLUDED(mutex_);

  // The same without a notice: the stream is opened while the server drains.
  void DrainAtOnce() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  InferStream(const InferContext& context, OpenStreams& open_streams,
              grpc::ServerCompletionQueue* queue, CallGate::Pass pass);

  // Tags.
  void OnAccepted(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnRead(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnWritten(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnFinished(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnDone(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);

  // Makes the caller, the window and the sequencer what the stream asks for.
  void Agree(const StreamTerms& terms) ABSL_LOCKS_EXCLUDED(mutex_);
  // Notes that the stream uses a model, so that it is told when the stream is cancelled.
  void Remember(const std::shared_ptr<ServedModel>& model) ABSL_LOCKS_EXCLUDED(mutex_);
  // Brings a request on its way.
  void TakeRequest(uint64_t place, const grpc::ByteBuffer& message) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnParked(int change) ABSL_LOCKS_EXCLUDED(mutex_);
  // An answer is there, and will be sent when its turn comes.
  void OnDecided(uint64_t place, const Response& response) ABSL_LOCKS_EXCLUDED(mutex_);
  // The sequencer's next answer.
  void TakeAnswer(uint64_t place, Response&& response) ABSL_LOCKS_EXCLUDED(mutex_);
  // What is to be traced of an answer whose turn has come; null where nothing is.
  std::unique_ptr<TracedRequest> Trace(Response& response) const;
  // Its answer was written, or couldn't be.
  void EndTrace(std::unique_ptr<TracedRequest> traced, bool delivered) const;
  // Counts an answer whose turn has come.
  void CountLeaving(const Response& response);
  // Drains the stream because it is old.
  void OnAged() ABSL_LOCKS_EXCLUDED(mutex_);
  void StartDrain(bool aged, bool may_notify) ABSL_LOCKS_EXCLUDED(mutex_);
  // The client has had its time to half-close.
  void OnNoticeOver() ABSL_LOCKS_EXCLUDED(mutex_);
  // What was read has had its time to be answered: ends a stream that is old.
  void OnGraceOver() ABSL_LOCKS_EXCLUDED(mutex_);
  std::string EndOfAge() const;
  // Has the timer call `method` then, instead of what it was to call.
  void CallLater(absl::Duration after, void (InferStream::*method)()) ABSL_LOCKS_EXCLUDED(mutex_);
  // Drops everything: the peer has gone.
  void Abandon() ABSL_LOCKS_EXCLUDED(mutex_);
  // Drops what waits at the models, and the answers to come. What runs already goes on. REQUIRES:
  // the stream was accepted, and takes no more answers: `gone_` or `early_end_` says so.
  void DropWaiting() ABSL_LOCKS_EXCLUDED(mutex_);

  // An answer on its way to the peer; or the notice of a drain, which has no place.
  struct Outgoing {
    std::optional<uint64_t> place;
    grpc::ByteBuffer message;
    std::unique_ptr<TracedRequest> traced = nullptr;  // Null: nobody wants to see it.
  };

  // What can be started now: a Write, a Read, the Finish. Decided after every change, in the same
  // critical section, and begun after it.
  struct Operations {
    std::optional<grpc::ByteBuffer> write;
    grpc::WriteOptions write_options;
    bool read = false;
    std::optional<absl::Status> finish;
  };
  // Changes the window by `change(window_)`, and the metric of what it holds.
  template <typename Change>
  void ChangeWindow(Change change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Operations NextOperations() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Begin(Operations operations) ABSL_LOCKS_EXCLUDED(mutex_);
  bool MayRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayFinish() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartFinish(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // An operation has come back; frees the stream after the last.
  void ReleaseTag();

  const InferContext& context_;
  OpenStreams& open_streams_;
  grpc::ServerCompletionQueue* const queue_;
  const CallGate::Pass pass_;
  grpc::ServerContext server_context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream_;
  std::shared_ptr<Caller> caller_;                // Null until the stream is accepted.
  std::shared_ptr<ResponseSequencer> sequencer_;  // As `caller_`.
  std::shared_ptr<StreamCounts> counts_;          // As `caller_`.
  std::string name_;                              // By which it counts.
  std::string trace_parent_;                      // Of requests that bring none of their own.

  MethodTag<InferStream, &InferStream::OnAccepted> on_accepted_;
  MethodTag<InferStream, &InferStream::OnRead> on_read_;
  MethodTag<InferStream, &InferStream::OnWritten> on_written_;
  MethodTag<InferStream, &InferStream::OnFinished> on_finished_;
  MethodTag<InferStream, &InferStream::OnDone> on_done_;

  // The reading thread's own; a Read is out on one thread at a time.
  grpc::ByteBuffer message_;
  std::weak_ptr<ServedModel> last_model_;  // In `models_`, unless they were given up.

  // Operations that are out, and the stream's hold on itself until the last of them is back.
  std::atomic<int> owed_tags_{2};  // Accepted and done.
  std::shared_ptr<InferStream> self_;

  absl::Time opened_;                // As `caller_`.
  std::atomic<int64_t> decided_{0};  // Answers that are there and haven't left.
  std::atomic<uint64_t> left_{0};    // Answers whose turn has come.
  std::atomic<uint64_t> drops_{0};   // Of them errors that say: given up, or no room.

  mutable Mutex mutex_;
  StreamWindow window_ ABSL_GUARDED_BY(mutex_);
  bool ends_on_error_ ABSL_GUARDED_BY(mutex_) = false;  // `triton_grpc_error`
  int parked_ ABSL_GUARDED_BY(mutex_) = 0;  // Briefly below 0 when unparking overtakes parking.
  uint64_t answered_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<uint64_t> writing_place_ ABSL_GUARDED_BY(mutex_);  // Whose answer is out.
  std::unique_ptr<TracedRequest> writing_traced_ ABSL_GUARDED_BY(mutex_);
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;   // No more requests will come.
  bool wants_notice_ ABSL_GUARDED_BY(mutex_) = false;  // `millrace-drain-notice`
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;      // It is to end in order.
  bool aged_ ABSL_GUARDED_BY(mutex_) = false;          // That is why it drains.
  bool reads_no_more_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Timer::Id> timer_ ABSL_GUARDED_BY(mutex_);
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;       // The peer has cancelled or vanished.
  absl::Status early_end_ ABSL_GUARDED_BY(mutex_);  // Not OK: ends with this once all is written.
  std::deque<Outgoing> outbox_ ABSL_GUARDED_BY(mutex_);
  // Those it has used. A stream may be open for months: it must not keep alive what has been
  // swapped for a newer version.
  std::vector<std::weak_ptr<ServedModel>> models_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace
