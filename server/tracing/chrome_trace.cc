// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tracing/chrome_trace.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace millrace {
namespace {

// The lanes of viewers are threads of processes.
constexpr int kRequests = 1;
constexpr int kReplicas = 2;
// How many batches of a replica are remembered: requests of one may be answered long after others.
constexpr size_t kBatches = 64;
// How many replicas have lanes. Versions come and go while a server runs.
constexpr size_t kMostLanes = 1024;

// A JSON string. What isn't UTF-8 is replaced.
std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string NameLane(const char* kind, int process, int thread, const std::string& name) {
  return absl::StrFormat(R"({"ph":"M","name":"%s","pid":%d,"tid":%d,"args":{"name":%s}},)", kind,
                         process, thread, Quoted(name)) +
         "\n";
}

bool Known(absl::Time time) { return time != absl::InfinitePast(); }

}  // namespace

std::string ChromeTrace::Begin() const {
  return absl::StrCat("[\n", NameLane("process_name", kRequests, 0, "requests"),
                      NameLane("process_name", kReplicas, 0, "replicas"));
}

std::string ChromeTrace::End() const {
  // The last event has no comma after it. Perfetto takes one without a phase for an error.
  return absl::StrFormat(
      R"({"ph":"M","name":"process_sort_index","pid":%d,"tid":0,"args":{"sort_index":%d}}])"
      "\n",
      kReplicas, kReplicas);
}

std::string ChromeTrace::Events(const TracedRequest& request) {
  const Timings& timings = request.timings;
  const std::string id = absl::StrFormat("%016x", request.trace->context.span);
  std::string out;
  // Spans of one id nest by the order of their events.
  const auto edge = [&](char phase, const char* name, absl::Time time, const std::string& args) {
    absl::StrAppendFormat(
        &out,
        R"({"ph":"%c","cat":"request","id2":{"local":"%s"},"name":"%s","pid":%d,"tid":0,)"
        R"("ts":%.3f%s},)"
        "\n",
        phase, id, name, kRequests, Microseconds(time), args);
  };
  const absl::Time end = request.written;
  const bool ran = Known(timings.started);
  const absl::Time executed = ran ? timings.started + timings.execute : timings.started;
  edge('b', "rpc", timings.arrival,
       absl::StrFormat(R"(,"args":{"rpc":"%s","model":%s,"version":%s,"request_id":%s,)"
                       R"("stream":%s,"code":"%s","trace_id":"%s","parent":"%016x"})",
                       request.rpc, Quoted(request.model), Quoted(request.version),
                       Quoted(request.id), Quoted(request.trace->stream),
                       absl::StatusCodeToString(request.code),
                       FormatTraceId(request.trace->context), request.trace->parent_span));
  const absl::Time waited = ran ? timings.started : timings.answered;
  if (Known(waited)) {
    edge('b', "queue", timings.arrival, "");
    if (ran && Known(timings.fill_end)) {
      edge('b', "fill", timings.fill_begin, "");
      edge('e', "fill", timings.fill_end, "");
    }
    edge('e', "queue", waited, "");
  }
  if (ran) {
    edge('b', "execute", timings.started,
         absl::StrFormat(R"(,"args":{"rows":%d,"replica":%d})", timings.batch_rows,
                         timings.replica));
    edge('e', "execute", executed, "");
  }
  if (Known(waited)) {
    edge('b', "reply", ran ? executed : waited, "");
    edge('e', "reply", end, "");
  }
  edge('e', "rpc", end, "");
  if (ran) AddBatch(request, out);
  return out;
}

void ChromeTrace::AddBatch(const TracedRequest& request, std::string& out) {
  const Timings& timings = request.timings;
  const std::string name =
      absl::StrCat(request.model, "/", request.version, " replica ", timings.replica);
  auto lane = lanes_.find(name);
  if (lane == lanes_.end()) {
    if (lanes_.size() >= kMostLanes) return;
    lane =
        lanes_.emplace(name, Lane{.number = static_cast<int>(lanes_.size()), .batches = {}}).first;
    out += NameLane("thread_name", kReplicas, lane->second.number, name);
  }
  std::deque<absl::Time>& batches = lane->second.batches;
  if (std::find(batches.begin(), batches.end(), timings.started) != batches.end()) return;
  batches.push_back(timings.started);
  if (batches.size() > kBatches) batches.pop_front();
  absl::StrAppendFormat(&out,
                        R"({"ph":"X","cat":"batch","name":"%d rows","pid":%d,"tid":%d,)"
                        R"("ts":%.3f,"dur":%.3f,"args":{"rows":%d}},)"
                        "\n",
                        timings.batch_rows, kReplicas, lane->second.number,
                        Microseconds(timings.started), absl::ToDoubleMicroseconds(timings.execute),
                        timings.batch_rows);
}

}  // namespace millrace
