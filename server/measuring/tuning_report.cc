// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/tuning_report.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

// More would be read by nobody; the JSON has all.
constexpr size_t kMostRows = 12;

using Row = std::array<std::string, 8>;

std::string FormatTime(absl::Duration time) {
  return absl::StrFormat("%.4g ms", absl::ToDoubleMilliseconds(time));
}

Row RowOf(const Measured& measured, int64_t max_batch_size) {
  const Candidate& candidate = measured.candidate;
  const int64_t rows = candidate.most_rows > 0 ? candidate.most_rows : max_batch_size;
  Row row = {absl::StrCat(candidate.replicas, " x ", candidate.threads),
             absl::StrCat(std::max<int64_t>(1, rows)), NameOf(*candidate.mode)};
  if (!measured.finding.status.ok()) {
    row[3] = absl::StrCat("failed: ", measured.finding.status.message());
    return row;
  }
  if (measured.finding.runs == 0) {
    row[3] = "not measured, for lack of time";
    return row;
  }
  row[3] = absl::StrFormat("%.5g", measured.trial.rows_per_second);
  row[4] = FormatTime(measured.trial.p50);
  row[5] = FormatTime(measured.trial.p99);
  row[6] = absl::StrFormat("%.1f %%", 100 * measured.finding.ratio);
  row[7] = absl::StrCat(measured.finding.runs);
  return row;
}

std::string FormatTable(const std::vector<Row>& rows) {
  Row::size_type width[std::tuple_size_v<Row>] = {};
  for (const Row& row : rows) {
    // A reason has a line to itself.
    const size_t cells = row[4].empty() ? 3 : row.size();
    for (size_t i = 0; i < cells; ++i) width[i] = std::max(width[i], row[i].size());
  }
  std::string table;
  for (const Row& row : rows) {
    std::string line = "  ";
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&line, row[i],
                      std::string(width[i] + 2 - std::min(width[i], row[i].size()), ' '));
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&table, line, "\n");
  }
  return table;
}

std::string FormatVersion(const TunedVersion& tuned, const Objective& objective) {
  std::string text = absl::StrCat(tuned.model, " version ", tuned.version.number);
  if (!tuned.status.ok()) {
    return absl::StrCat(text, " was not tuned: ", tuned.status.message(), "\n");
  }
  const ModelTuning& tuning = tuned.tuning;
  absl::StrAppend(&text, " for ", objective.ToString(), ": ",
                  NameOf(tuned.chosen, tuned.max_batch_size),
                  tuning.certain ? " (certain)\n" : " (the time was over before it was certain)\n");
  const bool shares = !(tuned.chosen == tuning.measured.front().candidate);
  if (shares) {
    absl::StrAppend(&text, "  which is its share of the cores; alone it would be ",
                    NameOf(tuning.measured.front().candidate, tuned.max_batch_size), "\n");
  }
  if (objective.goal == Objective::Goal::kSlo) {
    const Trial verified = tuning.verified.value_or(Trial());
    if (!tuning.verified || verified.p99 > objective.limit) {
      absl::StrAppend(&text, "  no rate was found at which p99 is within ",
                      absl::FormatDuration(objective.limit), "\n");
    } else {
      absl::StrAppendFormat(&text, "  %.5g requests/s at random, with a p99 of %s%s\n",
                            verified.rows_per_second, FormatTime(verified.p99),
                            shares ? ", alone; in its share it wasn't measured" : "");
    }
  }
  std::vector<Row> rows = {
      {"replicas x threads", "batch", "mode", "rows/s", "p50", "p99", "of the best", "runs"}};
  const size_t shown = std::min(kMostRows, tuning.measured.size());
  for (size_t i = 0; i < shown; ++i) {
    rows.push_back(RowOf(tuning.measured[i], tuned.max_batch_size));
  }
  absl::StrAppend(&text, FormatTable(rows));
  if (shown < tuning.measured.size()) {
    absl::StrAppend(&text, "  and ", tuning.measured.size() - shown, " more\n");
  }
  if (tuning.oversubscribed.empty()) return text;
  rows.resize(1);
  for (const Measured& each : tuning.oversubscribed) {
    rows.push_back(RowOf(each, tuned.max_batch_size));
  }
  return absl::StrCat(text, "  with more threads than cores:\n", FormatTable(rows));
}

Json JsonOf(const Candidate& candidate, int64_t max_batch_size) {
  const int64_t rows = candidate.most_rows > 0 ? candidate.most_rows : max_batch_size;
  return {{"replicas", candidate.replicas},        {"threads", candidate.threads},
          {"batch", std::max<int64_t>(1, rows)},   {"engine", EngineName(candidate.mode->engine)},
          {"bfloat16", candidate.mode->bfloat16},  {"channels_last", candidate.mode->channels_last},
          {"wait", WaitName(candidate.mode->wait)}};
}

Json JsonOf(const Trial& trial) {
  return {{"rows_per_second", trial.rows_per_second},
          {"p50_ms", absl::ToDoubleMilliseconds(trial.p50)},
          {"p99_ms", absl::ToDoubleMilliseconds(trial.p99)}};
}

Json JsonOf(const Measured& measured, int64_t max_batch_size, bool oversubscribed) {
  Json json = JsonOf(measured.candidate, max_batch_size);
  json["oversubscribed"] = oversubscribed;
  json["runs"] = measured.finding.runs;
  if (!measured.finding.status.ok()) {
    json["error"] = std::string(measured.finding.status.message());
  } else if (measured.finding.runs > 0) {
    json.update(JsonOf(measured.trial));
    json["of_the_best"] = measured.finding.ratio;
    if (!oversubscribed) {
      json["of_the_best_low"] = measured.finding.low;
      json["of_the_best_high"] = measured.finding.high;
    }
    if (measured.predicted_rate > 0) json["predicted_rate"] = measured.predicted_rate;
  }
  return json;
}

Json JsonOf(const TunedVersion& tuned) {
  Json json = {{"model", tuned.model}, {"version", tuned.version.number}};
  if (!tuned.status.ok()) {
    json["error"] = std::string(tuned.status.message());
    return json;
  }
  json["certain"] = tuned.tuning.certain;
  json["chosen"] = JsonOf(tuned.chosen, tuned.max_batch_size);
  if (tuned.tuning.verified) json["verified"] = JsonOf(*tuned.tuning.verified);
  json["plans"] = Json::array();
  for (const Measured& each : tuned.tuning.measured) {
    json["plans"].push_back(JsonOf(each, tuned.max_batch_size, false));
  }
  for (const Measured& each : tuned.tuning.oversubscribed) {
    json["plans"].push_back(JsonOf(each, tuned.max_batch_size, true));
  }
  return json;
}

}  // namespace

std::string FormatReport(const TuningReport& report) {
  std::string text = absl::StrCat("On ", Describe(report.machine), "\n");
  for (const TunedVersion& each : report.models) {
    absl::StrAppend(&text, "\n", FormatVersion(each, report.objective));
  }
  return text;
}

std::string ReportJson(const TuningReport& report) {
  Json json = {{"machine", Describe(report.machine)},
               {"cores", report.machine.cores},
               {"objective", report.objective.ToString()},
               {"models", Json::array()}};
  for (const TunedVersion& each : report.models) json["models"].push_back(JsonOf(each));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace millrace
