// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tracing/request_tracer.h"

#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "server/base/log.h"
#include "server/base/status.h"

namespace millrace {
namespace {

uint64_t RandomId() {
  thread_local absl::BitGen random;
  return absl::Uniform<uint64_t>(random, 1, std::numeric_limits<uint64_t>::max());
}

int64_t Microseconds(absl::Duration duration) { return absl::ToInt64Microseconds(duration); }

void WriteToLog(const TracedRequest& request) {
  const Timings& timings = request.timings;
  std::vector<LogField> fields = {
      {"request_id", request.id},
      {"trace_id", FormatTraceId(request.trace->context)},
      {"rpc", std::string(request.rpc)},
      {"peer", request.trace->peer},
      {"model", request.model},
      {"version", request.version},
      {"code", absl::StatusCodeToString(request.code)},
      {"total_us", Microseconds(request.written - timings.arrival)},
  };
  if (!request.trace->stream.empty()) fields.push_back({"stream", request.trace->stream});
  if (timings.started != absl::InfinitePast()) {
    fields.push_back({"queue_us", Microseconds(timings.queue)});
    fields.push_back({"fill_us", Microseconds(timings.fill)});
    fields.push_back({"execute_us", Microseconds(timings.execute)});
    fields.push_back(
        {"reply_us", Microseconds(request.written - timings.started - timings.execute)});
    fields.push_back({"batch_size", timings.batch_rows});
    fields.push_back({"replica", static_cast<int64_t>(timings.replica)});
    fields.push_back({"output_bytes", static_cast<int64_t>(request.output_bytes)});
  }
  Log(LogLevel::kInfo, request.delivered ? "request" : "request, whose client has gone", fields);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RequestTracer>> RequestTracer::Create(const Options& options,
                                                                     Clock& clock) {
  std::unique_ptr<TraceFile> file;
  if (!options.trace_file.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(
        file, TraceFile::Create(options.trace_file, options.trace_file_bytes, clock));
  }
  return std::unique_ptr<RequestTracer>(new RequestTracer(options, std::move(file)));
}

RequestTracer::RequestTracer(const Options& options, std::unique_ptr<TraceFile> file)
    : on_(file != nullptr || options.access_log_sample > 0),
      to_file_(file == nullptr ? 0 : options.trace_sample),
      to_log_(options.access_log_sample),
      file_(std::move(file)) {}

std::shared_ptr<RequestTrace> RequestTracer::Choose(absl::string_view trace_parent,
                                                    absl::string_view stream,
                                                    absl::FunctionRef<std::string()> peer) {
  const std::optional<TraceContext> parent = ParseTraceParent(trace_parent);
  const bool to_log = to_log_.Take();
  const bool to_file = to_file_.Take() || (file_ != nullptr && parent && parent->sampled);
  if (!parent && !to_log && !to_file) return nullptr;
  auto trace = std::make_shared<RequestTrace>();
  trace->to_log = to_log;
  trace->to_file = to_file;
  trace->to_client = parent.has_value();
  trace->stream = std::string(stream);
  if (to_log) trace->peer = peer();
  if (parent) {
    trace->context = *parent;
    trace->parent_span = parent->span;
  } else {
    trace->context.trace_high = RandomId();
    trace->context.trace_low = RandomId();
    trace->context.sampled = to_file;
  }
  trace->context.span = RandomId();
  return trace;
}

void RequestTracer::End(TracedRequest request) {
  if (request.trace->to_log) WriteToLog(request);
  if (request.trace->to_file) file_->Add(std::move(request));
}

}  // namespace millrace
