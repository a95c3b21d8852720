// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/frame_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/tensor_json.h"

namespace millrace {
inline namespace client {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kValuesPerOutput = 4;  // Shown in a human-readable line.

std::string HumanLine(const FrameAnswer& answer) {
  std::string line = absl::StrFormat("frame %5d  %8.3f s  %7.1f ms  ", answer.frame, answer.pts,
                                     absl::ToDoubleMilliseconds(answer.latency));
  if (!answer.response.ok()) return absl::StrCat(line, answer.response.status().ToString());
  for (const Tensor& output : answer.response->outputs) {
    const Json elements = ElementsToJson(output);
    absl::StrAppend(&line, output.name, " ", DescribeType(output.datatype, output.shape), ":");
    for (size_t i = 0; i < std::min(elements.size(), kValuesPerOutput); ++i) {
      absl::StrAppend(&line, " ",
                      elements[i].is_number_float()
                          ? absl::StrFormat("%.4g", elements[i].get<double>())
                          : ToText(elements[i]));
    }
    absl::StrAppend(&line, elements.size() > kValuesPerOutput ? " ...  " : "  ");
  }
  return line.substr(0, line.find_last_not_of(' ') + 1);
}

std::string JsonLine(int source, const std::string& name, const FrameAnswer& answer) {
  Json json = {{"source", source}, {"name", name}, {"frame", answer.frame}, {"pts", answer.pts}};
  if (answer.connection.has_value()) json["connection"] = *answer.connection;
  json["latency_ms"] = absl::ToDoubleMilliseconds(answer.latency);
  if (answer.response.ok()) {
    json["outputs"] = Json::array();
    for (const Tensor& output : answer.response->outputs) json["outputs"].push_back(ToJson(output));
  } else {
    const absl::Status status = answer.response.status();
    json["error"] = {{"code", absl::StatusCodeToString(status.code())},
                     {"message", std::string(status.message())}};
  }
  return ToText(json);
}

double PerSecond(int64_t count, absl::Time start, absl::Time now) {
  if (count == 0 || now <= start) return 0;
  return static_cast<double>(count) / absl::ToDoubleSeconds(now - start);
}

}  // namespace

void FrameLog::Tally::Add(const Tally& other) {
  sent += other.sent;
  dropped += other.dropped;
  errors += other.errors;
  bytes += other.bytes;
  latencies.Add(other.latencies);
}

FrameLog::FrameLog(const Session& session, bool json, std::vector<std::string> sources,
                   int64_t total)
    : session_(session),
      json_(json),
      names_(std::move(sources)),
      progress_(session.err, session.err_is_terminal, "frames", total),
      tallies_(names_.size()) {}

void FrameLog::Sent(int source, size_t bytes) {
  std::lock_guard lock(mutex_);
  start_ = std::min(start_, absl::Now());
  ++tallies_[source].sent;
  tallies_[source].bytes += static_cast<double>(bytes);
}

void FrameLog::Answered(int source, const FrameAnswer& answer) {
  const std::string line = json_ ? JsonLine(source, names_[source], answer)
                           : names_.size() == 1
                               ? HumanLine(answer)
                               : absl::StrCat(names_[source], "  ", HumanLine(answer));
  std::lock_guard lock(mutex_);
  Tally& tally = tallies_[source];
  if (absl::IsAborted(answer.response.status())) {
    ++tally.dropped;
  } else {
    tally.latencies.Add(answer.latency);
    tally.errors += answer.response.ok() ? 0 : 1;
  }
  progress_.Clear();
  session_.out << line << "\n" << std::flush;
  const absl::Time now = absl::Now();
  ++answered_;
  progress_.Show(answered_, PerSecond(answered_, start_, now), now);
}

void FrameLog::Tell(int source, const std::string& what) {
  std::lock_guard lock(mutex_);
  progress_.Clear();
  session_.err << "millrace: " << (names_.size() > 1 ? names_[source] + ": " : "") << what << "\n"
               << std::flush;
}

void FrameLog::Finish(int source, const std::optional<LiveSource::Counts>& live) {
  std::lock_guard lock(mutex_);
  progress_.Clear();
  const Tally& tally = tallies_[source];
  if (names_.size() > 1) session_.err << names_[source] << ": ";
  session_.err << Summary(tally, start_, absl::Now());
  if (live.has_value()) {
    session_.err << absl::StrFormat(
        "; %d read, %d sent, %d dropped here, %d by the server, %d reconnects", live->read,
        tally.sent, live->dropped, tally.dropped, live->reconnects);
  } else if (tally.dropped > 0) {
    session_.err << "; " << tally.dropped << " dropped by the server";
  }
  session_.err << "\n" << std::flush;
}

void FrameLog::FinishAll() {
  std::lock_guard lock(mutex_);
  if (names_.size() == 1) return;
  session_.err << "all: " << Summary(Sum(), start_, absl::Now()) << "\n";
}

int64_t FrameLog::errors() const {
  std::lock_guard lock(mutex_);
  return Sum().errors;
}

FrameLog::Tally FrameLog::Sum() const {
  Tally sum;
  for (const Tally& tally : tallies_) sum.Add(tally);
  return sum;
}

std::string FrameLog::Summary(const Tally& tally, absl::Time start, absl::Time now) {
  const int64_t count = tally.latencies.count();
  std::string summary = absl::StrFormat(
      "%d frames in %.1f s: %.1f frames/s, latency p50 %.1f ms, p99 %.1f ms, %d errors", count,
      tally.sent == 0 ? 0.0 : absl::ToDoubleSeconds(now - start), PerSecond(count, start, now),
      absl::ToDoubleMilliseconds(tally.latencies.Percentile(0.50)),
      absl::ToDoubleMilliseconds(tally.latencies.Percentile(0.99)), tally.errors);
  if (tally.sent > 0) {
    absl::StrAppendFormat(&summary, ", %.1f KB a frame",
                          tally.bytes / 1000 / static_cast<double>(tally.sent));
  }
  return summary;
}

}  // namespace client
}  // namespace millrace
