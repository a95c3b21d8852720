// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/app/status_report.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/base/clock.h"
#include "server/hardware/cpu_list.h"
#include "server/metrics/metric_names.h"

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

double Milliseconds(absl::Duration duration) {
  return absl::ToDoubleMilliseconds(absl::Trunc(duration, absl::Microseconds(1)));
}

Json SettingsOf(const std::string& effective) {
  Json settings = Json::object();
  for (const absl::string_view line : absl::StrSplit(effective, '\n', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> setting =
        absl::StrSplit(line, absl::MaxSplits(": ", 1));
    bool secret = false;
    for (const char* word : {"key", "token", "secret", "password"}) {
      secret = secret || absl::StrContains(setting.first, word);
    }
    settings[setting.first] = secret ? "(redacted)" : setting.second;
  }
  return settings;
}

Json LaneOf(const ReplicaPool::Lane& lane) {
  const bool gpu = lane.placement.device == DeviceKind::kGpu;
  Json json = {{"index", lane.index},
               {"pid", lane.pid},
               {"serves", lane.state.ok()},
               {"reason", lane.state.message()},
               {"device", gpu ? absl::StrCat("gpu", lane.placement.device_index) : "cpu"},
               {"cpus", FormatCpuList(lane.placement.cpus)},
               {"threads", lane.placement.threads},
               {"busy_ms", nullptr},
               {"rows", 0}};
  if (lane.busy_for.has_value()) {
    json["busy_ms"] = Milliseconds(*lane.busy_for);
    json["rows"] = lane.rows;
  }
  return json;
}

// What a model version has done since it was loaded, and what waits.
void AddFigures(const ModelMetrics& metrics, Json& json) {
  const ModelStatistics statistics = metrics.Statistics(WallTime());
  json["succeeded"] = statistics.success.count;
  json["failed"] = statistics.fail.count;
  json["rows"] = statistics.inference_count;
  json["batches"] = statistics.execution_count;
  Json sizes = Json::array();
  for (const ModelStatistics::BatchSize& size : statistics.batches) {
    sizes.push_back({size.rows, size.compute_infer.count});
  }
  json["batch_sizes"] = std::move(sizes);
  for (const Sample& sample : metrics.Collect()) {
    if (sample.metric == &kReplicaRestartsTotal) json["restarts"] = std::get<double>(sample.value);
    if (sample.metric != &kRequestDuration) continue;
    const auto& histogram = std::get<HistogramValue>(sample.value);
    json["latency"] = {{"bounds_seconds", histogram.bounds}, {"counts", histogram.counts}};
  }
  if (const std::optional<ModelGauges> gauges = metrics.Gauges()) {
    json["queue"] = {{"rows", gauges->queue_depth},
                     {"limit", gauges->queue_limit},
                     {"oldest_ms", Milliseconds(gauges->oldest_queued_age)},
                     {"in_flight", gauges->in_flight},
                     {"parked", gauges->parked},
                     {"overloaded", gauges->overloaded},
                     {"utilisation", gauges->utilisation},
                     {"capacity_rows_per_second", gauges->capacity}};
  }
}

struct Restart {
  std::string model, version;
  ReplicaPool::Loss loss;
};

Json RestartsOf(std::vector<Restart> restarts, absl::Time now) {
  std::sort(restarts.begin(), restarts.end(),
            [](const Restart& a, const Restart& b) { return a.loss.when > b.loss.when; });
  if (restarts.size() > StatusReport::kMostRestarts) restarts.resize(StatusReport::kMostRestarts);
  Json list = Json::array();
  for (const Restart& each : restarts) {
    list.push_back({{"model", each.model},
                    {"version", each.version},
                    {"replica", each.loss.replica},
                    {"seconds_ago", absl::ToInt64Seconds(now - each.loss.when)},
                    {"cause", each.loss.cause}});
  }
  return list;
}

// The models, and into `restarts` what was lost of them.
void AddModels(const ModelRepository& repository, Json& json, std::vector<Restart>& restarts) {
  std::map<std::pair<std::string, std::string>, std::shared_ptr<ServedModel>> loaded;
  for (auto& model : repository.Loaded()) {
    auto key = std::make_pair(model->metrics().model(), model->metrics().version());
    loaded.emplace(std::move(key), std::move(model));
  }
  const std::vector<ModelRepository::IndexEntry> index = repository.Index();
  Json models = Json::array();
  size_t lanes_left = StatusReport::kMostReplicas;
  size_t lanes_left_out = 0;
  for (const ModelRepository::IndexEntry& entry : index) {
    if (models.size() == StatusReport::kMostModels) break;
    Json model = {{"name", entry.name},
                  {"version", entry.version},
                  {"state", NameOf(entry.state)},
                  {"reason", entry.reason}};
    const auto found = loaded.find({entry.name, entry.version});
    if (found != loaded.end()) {
      const ServedModel& served = *found->second;
      const absl::Status readiness = served.readiness();
      if (!readiness.ok()) model["reason"] = readiness.message();
      model["healthy"] = readiness.ok();
      model["platform"] = served.platform();
      model["note"] = served.note();
      model["optional"] = served.is_optional();
      model["most_replicas"] = served.replicas().most_replicas();
      AddFigures(served.metrics(), model);
      Json lanes = Json::array();
      for (const ReplicaPool::Lane& lane : served.replicas().lanes()) {
        if (lanes_left == 0) {
          ++lanes_left_out;
          continue;
        }
        --lanes_left;
        lanes.push_back(LaneOf(lane));
      }
      model["replicas"] = std::move(lanes);
      for (ReplicaPool::Loss& loss : served.replicas().recent_losses()) {
        restarts.push_back({entry.name, entry.version, std::move(loss)});
      }
    }
    models.push_back(std::move(model));
  }
  json["models_left_out"] = index.size() - models.size();
  json["replicas_left_out"] = lanes_left_out;
  json["models"] = std::move(models);
}

void AddStreams(const OpenStreams& streams, Json& json) {
  size_t open = 0;
  Json list = Json::array();
  for (const StreamGlance& stream : streams.Look(StatusReport::kMostStreams, &open)) {
    list.push_back({{"name", stream.name},
                    {"open_seconds", absl::ToInt64Seconds(stream.open_for)},
                    {"held", stream.held},
                    {"window", stream.window},
                    {"held_bytes", stream.held_bytes},
                    {"answers", stream.answers},
                    {"drops", stream.drops}});
  }
  json["streams_open"] = open;
  json["streams_left_out"] = open - std::min(open, list.size());
  json["streams"] = std::move(list);
}

// Names and reasons may come from outside, and needn't be UTF-8.
std::string Write(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace

StatusReport::StatusReport(Context context)
    : context_(std::move(context)), started_(Clock::Real().Now()) {}

std::string StatusReport::Json() const {
  const absl::Time now = Clock::Real().Now();
  const absl::Status ready = context_.readiness();
  const ModelRepository& repository = *context_.repository;
  PlacementBook& places = context_.repository->places();
  nlohmann::ordered_json json = {{"version", context_.version},
                                 {"uptime_seconds", absl::ToDoubleSeconds(now - started_)},
                                 {"ready", ready.ok()},
                                 {"reason", ready.message()},
                                 {"cpu_cores", places.budget().cores()},
                                 {"batch_cores", places.slots()},
                                 {"transform_workers", context_.transforms->limit()},
                                 {"connections", context_.rpc->listeners().acceptor().open()},
                                 {"queue_bytes", repository.memory().taken()},
                                 {"queue_bytes_limit", repository.memory().limit()}};
  std::vector<Restart> restarts;
  AddModels(repository, json, restarts);
  json["restarts"] = RestartsOf(std::move(restarts), now);
  AddStreams(context_.rpc->streams(), json);
  json["configuration"] = SettingsOf(context_.config->effective);
  return Write(json);
}

std::string RedactedSettings(const std::string& effective) { return Write(SettingsOf(effective)); }

}  // namespace millrace
