// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/base/clock.h"

namespace millrace {

// Sends one request over and over, and measures how fast the answers come. Made to be cheap, since
// it shares its cores with what it measures: one thread, one completion queue, the request's bytes
// made once, the answers never parsed. Confined to one thread.
//
// The load is a closed loop, where an answer makes room for the next request; or, with a rate, an
// open one, where requests are due at the times of a Poisson process whatever the answers do. A
// request that finds no free call or whose stream is held up is sent late, never left out, and its
// latency counts from when it was due: a server that stalls can't hide what it did to those that
// came meanwhile.
class LoadGenerator {
 public:
  struct Options {
    std::string target;         // host:port or unix:/path
    grpc::ByteBuffer request;   // A ModelInferRequest.
    int calls = 0;              // Unary calls at a time; in an open loop at most. Or else
    int streams = 0;            // bidirectional streams,
    int window = 1;             // each with so many requests under way; or, in an open loop, any.
    double rate = 0;            // Requests per second of an open loop; 0: a closed loop.
    uint64_t seed = 0;          // Of the open loop's times.
    bool count_errors = false;  // Instead of failing.
    int connections = 1;        // That calls or streams are dealt over.
    absl::Duration warmup;      // Load that comes first and isn't measured.
    absl::Duration duration;    // What is measured.
    std::vector<pid_t> cpu_of;  // Processes whose CPU time is measured too.
  };
  struct Result {
    int64_t requests = 0;  // Answered well in the time measured; in an open loop, due then.
    std::map<absl::StatusCode, int64_t> errors;  // The others.
    double per_second = 0;
    absl::Duration p50, p99;
    absl::Duration late_p99;  // How late an open loop sent what was due.
    std::vector<int64_t> per_stream;
    size_t response_bytes = 0;  // Of the last answer.
    absl::Duration wall;        // That the CPU times are of.
    absl::Duration own_cpu;
    std::vector<absl::Duration> cpu_of;
  };

  LoadGenerator(Options options, Clock& clock);
  ~LoadGenerator();

  // Connects, loads, and returns once every request under way has its answer. Blocks. An error
  // where the server can't be reached, a stream breaks off, an answer is missing, or any request
  // fails and errors aren't counted.
  absl::StatusOr<Result> Run();

 private:
  class Caller;
  class Call;
  class Stream;
  class Arrivals;

  absl::Status Connect();
  void StartLoad();
  // Completes tags until `until`, or until nothing is under way.
  absl::Status PumpUntil(absl::Time until);
  bool open_loop() const { return options_.rate > 0; }
  // Whether a request that was due then, or is answered now, belongs to what is measured.
  bool Counts(absl::Time due) const;
  // A request of the open loop is due.
  void Arrive(absl::Time due, size_t stream);
  void Sending(absl::Time due);
  void Answered(absl::Time due, size_t bytes, size_t caller);
  void Refused(absl::Time due, absl::Status status);
  void Fail(absl::Status status);
  // Measures until every request is answered that the result is about.
  absl::Status Measure(Result& result);
  absl::Status Drain();
  std::vector<absl::Duration> CpuTimes() const;

  const Options options_;
  Clock& clock_;
  grpc::CompletionQueue queue_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::unique_ptr<Arrivals> arrivals_;  // Of an open loop.
  std::vector<Caller*> live_;           // All of these.
  std::vector<Call*> idle_;             // Of an open loop.
  std::deque<absl::Time> waiting_;      // Due times that found no idle call.

  absl::Status failed_;
  bool stopping_ = false;
  int open_ = 0;  // Calls under way, streams that have not ended, and arrivals that go on.
  absl::Time measured_from_ = absl::InfiniteFuture();
  absl::Time measured_until_ = absl::InfiniteFuture();
  absl::Time last_answer_;
  int64_t due_ = 0;                 // Requests of the open loop that are measured.
  std::vector<int64_t> latencies_;  // Nanoseconds, as below.
  std::vector<int64_t> lateness_;
  std::map<absl::StatusCode, int64_t> errors_;
  std::vector<int64_t> answers_;  // By stream.
  size_t response_bytes_ = 0;
};

}  // namespace millrace
