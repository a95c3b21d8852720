// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/base/clock.h"

namespace millrace {

// Sends one request over and over, in a closed loop, and measures how fast the answers come. Made
// to be cheap, since it shares its cores with what it measures: one thread, one completion queue,
// the request's bytes made once, the answers never parsed. Confined to one thread.
class LoadGenerator {
 public:
  struct Options {
    std::string target;         // host:port or unix:/path
    grpc::ByteBuffer request;   // A ModelInferRequest.
    int calls = 0;              // Unary calls at a time; or else
    int streams = 0;            // bidirectional streams,
    int window = 1;             // each with so many requests under way.
    int connections = 1;        // That calls or streams are dealt over.
    absl::Duration warmup;      // Load that comes first and isn't measured.
    absl::Duration duration;    // What is measured.
    std::vector<pid_t> cpu_of;  // Processes whose CPU time is measured too.
  };
  struct Result {
    int64_t requests = 0;
    double per_second = 0;
    absl::Duration p50, p99;
    size_t response_bytes = 0;  // Of the last answer.
    absl::Duration wall;        // That the CPU times are of.
    absl::Duration own_cpu;
    std::vector<absl::Duration> cpu_of;
  };

  LoadGenerator(Options options, Clock& clock);
  ~LoadGenerator();

  // Connects, loads, and returns once every request under way has its answer. Blocks. An error
  // where the server can't be reached, or any request fails.
  absl::StatusOr<Result> Run();

 private:
  class Caller;
  class Call;
  class Stream;

  absl::Status Connect();
  void StartLoad();
  // Completes tags until `until`, or until nothing is under way.
  absl::Status PumpUntil(absl::Time until);
  void Answered(absl::Time sent, size_t bytes);
  void Fail(absl::Status status);
  std::vector<absl::Duration> CpuTimes() const;

  const Options options_;
  Clock& clock_;
  grpc::CompletionQueue queue_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::vector<std::unique_ptr<Caller>> live_;

  absl::Status failed_;
  bool stopping_ = false;
  int open_ = 0;  // Calls and streams that have not ended.
  bool measuring_ = false;
  absl::Time last_answer_;
  std::vector<int64_t> latencies_;  // Nanoseconds.
  size_t response_bytes_ = 0;
};

}  // namespace millrace
