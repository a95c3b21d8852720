// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/base/clock.h"
#include "server/tracing/trace_file.h"
#include "server/tracing/traced_request.h"

namespace millrace {

// Takes every n-th, evenly. Thread-safe.
class Sampler {
 public:
  // `rate` is the part that is taken, from 0 to 1.
  explicit Sampler(double rate) : rate_(rate) {}

  bool Take() {
    if (rate_ <= 0) return false;
    const auto number = static_cast<double>(count_.fetch_add(1, std::memory_order_relaxed));
    return static_cast<uint64_t>((number + 1) * rate_) != static_cast<uint64_t>(number * rate_);
  }

 private:
  const double rate_;
  std::atomic<uint64_t> count_{0};
};

// Decides which requests are traced and logged, and does it once they are answered. Thread-safe.
// Where it is off, a request costs it a branch.
class RequestTracer {
 public:
  struct Options {
    std::string trace_file;        // Empty: none.
    double trace_sample = 0.01;    // The part of the requests that is in it,
    int64_t trace_file_bytes = 0;  // up to so many bytes. See TraceFile.
    double access_log_sample = 0;  // The part of the requests that is logged.
  };

  // An error names a file that can't be written.
  static absl::StatusOr<std::unique_ptr<RequestTracer>> Create(const Options& options,
                                                               Clock& clock);

  // Whether anything is traced or logged: where not, contexts in metadata needn't be looked for.
  bool on() const { return on_; }

  // What goes with a request that comes with the trace context `trace_parent` ("" is none): null
  // where nobody wants to see it. One whose context says that it is recorded is always in the file.
  std::shared_ptr<RequestTrace> Begin(absl::string_view trace_parent, absl::string_view stream,
                                      absl::FunctionRef<std::string()> peer) {
    if (!on_ && trace_parent.empty()) return nullptr;
    return Choose(trace_parent, stream, peer);
  }

  // Takes a request whose answer was written, or couldn't be. REQUIRES: request.trace.
  void End(TracedRequest request);

  // Requests that are not in the trace file and should be.
  uint64_t dropped() const { return file_ == nullptr ? 0 : file_->dropped(); }

 private:
  RequestTracer(const Options& options, std::unique_ptr<TraceFile> file);

  std::shared_ptr<RequestTrace> Choose(absl::string_view trace_parent, absl::string_view stream,
                                       absl::FunctionRef<std::string()> peer);

  const bool on_;
  Sampler to_file_;
  Sampler to_log_;
  const std::unique_ptr<TraceFile> file_;  // Null: there is none.
};

}  // namespace millrace
